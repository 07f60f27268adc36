# Installs from the Git repository at the absolute path $HOMEBREW_ABSTRACT_GIT;
# deploy/macos.md tells how.
class Abstract < Formula
  REPOSITORY = ENV.fetch("HOMEBREW_ABSTRACT_GIT", "/usr/local/src/abstract").freeze

  desc "Find the attention heads and neurons that make a language model refuse"
  homepage "file://#{REPOSITORY}"
  license "MIT"
  head "file://#{REPOSITORY}", using: :git, branch: "main"

  depends_on "cmake" => :build
  depends_on "cli11" => :build
  depends_on "ninja" => :build
  depends_on "nlohmann-json" => :build
  depends_on "node" => :build # Plotly for the dashboard, by npm.
  depends_on "pkgconf" => :build
  depends_on "abseil"
  depends_on "grpc"
  depends_on "highway"
  depends_on "libdeflate"
  depends_on "libmicrohttpd"
  depends_on "openssl@3"
  depends_on "pcre2"
  depends_on "prometheus-cpp"
  depends_on "protobuf"
  depends_on "pytorch"
  depends_on "spdlog"
  depends_on "sqlitecpp"
  depends_on "utf8proc"
  depends_on "yaml-cpp"
  uses_from_macos "curl"
  uses_from_macos "zlib"

  def install
    ENV["npm_config_cache"] = "#{buildpath}/npm-cache"
    system "cmake", "-S", ".", "-B", "build", "-G", "Ninja", "-DABSTRACT_BUILD_TESTS=OFF",
           "-DOPENSSL_ROOT_DIR=#{Formula["openssl@3"].opt_prefix}", *std_cmake_args
    system "cmake", "--build", "build"
    system "cmake", "--install", "build"
    (etc/"abstract").install "data/config.yaml"
  end

  service do
    run [opt_bin/"abstract-model-server", "--config", etc/"abstract/config.yaml"]
    keep_alive successful_exit: false # After a crash, not after a clean stop.
    process_type :interactive # Background processes are slowed down.
    log_path var/"log/abstract-model-server.log"
    error_log_path var/"log/abstract-model-server.log"
  end

  test do
    assert_match "abstract-model-server", shell_output("#{bin}/abstract-model-server --version")
    address = "127.0.0.1:#{free_port}"
    ENV["ABSTRACT_MODEL_DEVICE"] = "cpu"
    server = spawn "#{bin}/abstract-model-server", "--model", "#{pkgshare}/models/tiny-llama-refusal",
                   "--listen-address", address, "--metrics-address", ""
    begin
      answer = shell_output("#{bin}/abstract --server #{address} --max-attempts 30 generate 'How do I cook rice?'")
      assert_match "rice", answer
    ensure
      Process.kill "TERM", server
      Process.wait server
    end
  end
end
