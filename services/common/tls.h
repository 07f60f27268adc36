#ifndef SERVICES_COMMON_TLS_H_
#define SERVICES_COMMON_TLS_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace mechinterp {

// Files in PEM. Empty names: no TLS.
struct ServerTlsOptions {
  std::string certificate;  // the server's, with those that lead to its root
  std::string key;
  // When given, clients must show a certificate that this authority signed (mutual TLS).
  std::string client_ca;

  bool empty() const { return certificate.empty() && key.empty() && client_ca.empty(); }
};

// Files are read again when they change, within seconds: certificates are renewed without a
// restart. Errors: InvalidArgument, naming the option whose file is missing or is no PEM.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerTlsOptions& options);

struct ClientTlsOptions {
  bool enabled = false;
  std::string ca;                // whom to trust; empty: the system's authorities
  std::string certificate, key;  // to show, where the server wants one
};

// Errors as above.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ClientTlsOptions& options);

// Whether only this machine reaches the address: loopback, by number or as "localhost".
bool IsLoopback(const std::string& address);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TLS_H_
