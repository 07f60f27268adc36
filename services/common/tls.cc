#include "services/common/tls.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

constexpr unsigned kReloadSeconds = 5;
constexpr int64_t kMaxPemBytes = 1 << 20;

absl::StatusOr<std::string> ReadPem(const std::string& option, const std::string& path,
                                    absl::string_view marker) {
  if (path.empty()) return absl::InvalidArgumentError(absl::StrCat(option, " is missing"));
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxPemBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", text.status().message()));
  }
  if (!absl::StrContains(*text, "-----BEGIN ") || !absl::StrContains(*text, marker)) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", path, " holds no ", marker, " in PEM"));
  }
  return *text;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerTlsOptions& options) {
  if (options.empty()) return grpc::InsecureServerCredentials();
  ABSTRACT_RETURN_IF_ERROR(ReadPem("--tls-certificate", options.certificate, "CERTIFICATE").status());
  ABSTRACT_RETURN_IF_ERROR(ReadPem("--tls-key", options.key, "PRIVATE KEY").status());
  const bool is_mutual = !options.client_ca.empty();
  if (is_mutual)
    ABSTRACT_RETURN_IF_ERROR(ReadPem("--tls-client-ca", options.client_ca, "CERTIFICATE").status());

  grpc::experimental::TlsServerCredentialsOptions tls(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          options.key, options.certificate, options.client_ca, kReloadSeconds));
  tls.watch_identity_key_cert_pairs();
  if (is_mutual) {
    tls.watch_root_certs();
    tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(tls);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const ClientTlsOptions& options) {
  if (!options.enabled) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions tls;
  if (!options.ca.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(tls.pem_root_certs, ReadPem("--tls-ca", options.ca, "CERTIFICATE"));
  }
  if (!options.certificate.empty() || !options.key.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(tls.pem_cert_chain,
                              ReadPem("--tls-certificate", options.certificate, "CERTIFICATE"));
    ABSTRACT_ASSIGN_OR_RETURN(tls.pem_private_key, ReadPem("--tls-key", options.key, "PRIVATE KEY"));
  }
  return grpc::SslCredentials(tls);
}

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  // 127.0.0.1.example.com is somebody's name.
  const bool is_number = host.find_first_not_of("0123456789.") == std::string::npos;
  return (is_number && absl::StartsWith(host, "127.")) || host == "localhost" || host == "[::1]";
}

}  // namespace mechinterp
