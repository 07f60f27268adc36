#include "tests/benchmarks/llama_bench.h"

#include <sys/wait.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace mechinterp::benchmarks {
namespace {

constexpr int kShellFoundNoProgram = 127;  // POSIX

// For the shell that popen starts.
std::string Quoted(const std::string& word) {
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

}  // namespace

std::optional<LlamaBench> LlamaBench::FromOptions(const BenchmarkOptions& options, int threads) {
  if (options.gguf.empty()) return std::nullopt;
  return LlamaBench(options.llama_bench, options.gguf, threads);
}

absl::StatusOr<double> LlamaBench::Run(int prompt_tokens, int new_tokens) {
  const std::string command = absl::StrCat(Quoted(program_), " -m ", Quoted(gguf_), " -t ", threads_, " -p ",
                                           prompt_tokens, " -n ", new_tokens, " -r 1 -o json 2>/dev/null");
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return absl::UnavailableError("cannot run " + command);
  std::string output;
  char buffer[4096];
  for (size_t count; (count = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, count);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kShellFoundNoProgram) {
    return absl::NotFoundError(absl::StrCat("--llama-bench: there is no program '", program_, "'"));
  }
  if (status != 0) return absl::UnavailableError(absl::StrCat(command, ": failed with status ", status));
  const auto document = nlohmann::json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (!document.is_array() || document.size() != 1 || !document[0].contains("avg_ts") ||
      !document[0]["avg_ts"].is_number()) {
    return absl::UnavailableError(absl::StrCat(command, ": printed something else than one result"));
  }
  return document[0]["avg_ts"].get<double>();
}

}  // namespace mechinterp::benchmarks
