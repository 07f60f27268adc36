#ifndef SERVICES_RPC_NETWORK_OPTIONS_H_
#define SERVICES_RPC_NETWORK_OPTIONS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/common/command_line.h"
#include "services/rpc/rpc_server.h"

namespace mechinterp {

// What every server is told of the network on its command line.
struct NetworkOptions {
  explicit NetworkOptions(const std::string& address) : listen_address(address) {}

  std::string listen_address;
  ServerTlsOptions tls;
  bool insecure = false;
  std::string token_file;
  bool reflection = true;
  int max_connections = 0;  // 0: half of the descriptors that the process may have
  int stall_seconds = 60;
  bool log_json = false;
  bool log_prompts = false;
  std::string otlp_endpoint;
};

// Adds the options to a command line; both must outlive the parsing.
void AddNetworkOptions(Command command, NetworkOptions& options);

// What a server is started with. `program`: whose spans they are. `registry` may be null. Errors:
// InvalidArgument where the tokens' file is missing or wrong.
absl::StatusOr<RpcServerOptions> MakeServerOptions(const NetworkOptions& options, const std::string& program,
                                                   std::shared_ptr<prometheus::Registry> registry);

}  // namespace mechinterp

#endif  // SERVICES_RPC_NETWORK_OPTIONS_H_
