#include "services/rpc/network_options.h"

#include <algorithm>
#include <utility>

#include "services/common/status_macros.h"
#include "services/common/termination_signals.h"
#include "services/rpc/token_access.h"

namespace mechinterp {

void AddNetworkOptions(Command command, NetworkOptions& options) {
  command.AddOption("--listen-address", options.listen_address,
                    "Where to serve gRPC. Addresses that other machines reach, such as 0.0.0.0:50051, need "
                    "--tls-certificate and --tls-key, or --insecure");
  command.AddOption("--tls-certificate", options.tls.certificate,
                    "The server's certificate chain in PEM; read again when it changes");
  command.AddOption("--tls-key", options.tls.key, "Its private key in PEM");
  command.AddOption("--tls-client-ca", options.tls.client_ca,
                    "Certificates in PEM; clients must show one that these signed");
  command.AddFlag("--insecure", options.insecure,
                  "Serve other machines without TLS: whoever is on the network reads along");
  command.AddOption(
      "--tokens", options.token_file,
      "Who may call: a file of tokens made by `abstract token create`; read again when it changes. Without "
      "it, everybody who reaches the address");
  command
      .AddOption("--max-connections", options.max_connections,
                 "Connections open at once; 0: half of the files that the process may open")
      .InRange(0, 1 << 20);
  command
      .AddOption("--stall-seconds", options.stall_seconds,
                 "How long a client may leave an answer unread before its call is ended")
      .InRange(1, 86'400);
  command.AddChoice("--reflection", options.reflection,
                    std::vector<std::pair<std::string, bool>>{{"on", true}, {"off", false}},
                    "Whether clients may ask which services and messages there are");
  command.AddChoice("--log-format", options.log_json,
                    std::vector<std::pair<std::string, bool>>{{"text", false}, {"json", true}},
                    "How a request's line in the log is written");
  command.AddFlag("--log-prompts", options.log_prompts,
                  "Write prompts into the log, which never has them otherwise");
  command.AddOption(
      "--otlp-endpoint", options.otlp_endpoint,
      "An OpenTelemetry collector that takes OTLP over HTTP, as in http://127.0.0.1:4318; gets a span "
      "of every request. Empty: none");
}

absl::StatusOr<RpcServerOptions> MakeServerOptions(const NetworkOptions& options, const std::string& program,
                                                   std::shared_ptr<prometheus::Registry> registry) {
  RpcServerOptions server;
  server.listen_address = options.listen_address;
  server.tls = options.tls;
  server.insecure = options.insecure;
  server.reflection = options.reflection;
  server.registry = std::move(registry);
  const int descriptors = RaiseDescriptorLimit();
  server.max_connections =
      options.max_connections > 0 ? options.max_connections : std::max(16, descriptors / 2);
  server.dispatch.limits.stall = absl::Seconds(options.stall_seconds);
  server.otlp.endpoint = options.otlp_endpoint;
  server.otlp.service_name = program;
  server.dispatch.log = {options.log_json, options.log_prompts};
  if (!options.token_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(server.access, TokenAccess::Open(options.token_file));
  }
  return server;
}

}  // namespace mechinterp
