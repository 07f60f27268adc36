#ifndef TESTS_BENCHMARKS_LOCAL_SERVICE_H_
#define TESTS_BENCHMARKS_LOCAL_SERVICE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "mechinterp/v1/model_service.grpc.pb.h"
#include "services/common/tls.h"
#include "services/model/model_service.h"
#include "services/rpc/rpc_server.h"

namespace mechinterp::benchmarks {

// How a client and the server are sure of each other.
struct Security {
  ServerTlsOptions tls;    // empty: plain text
  std::string authority;   // the file of the certificates that the client trusts
  std::string token_file;  // empty: everybody may call
  std::string token;
};

// What came of a stream of activations, after its header.
struct Transfer {
  int64_t bytes = 0;
  double seconds = 0;
};

// The model service behind a real gRPC server on loopback, in this process, so
// that it and the engine called directly are measured on the same weights.
// Thread-safe once started.
class LocalService {
 public:
  static absl::StatusOr<std::unique_ptr<LocalService>> Start(std::shared_ptr<const engine::Model> model,
                                                             const ModelServiceOptions& options,
                                                             int max_requests = 32,
                                                             const Security& security = {});

  // Another client of it, for what is written against one; with a connection of its own.
  std::unique_ptr<v1::ModelService::Stub> NewStub() const;

  // A call that asks for next to nothing.
  absl::Status Ping();

  // Greedy decoding of exactly `new_tokens`, in the caller's thread; `on_token` is
  // called as each one arrives.
  absl::Status Generate(const engine::TokenizedPrompt& prompt, int new_tokens,
                        const std::function<void()>& on_token);
  absl::StatusOr<Transfer> RunWithCache(const engine::TokenizedPrompt& prompt,
                                        const std::string& name_pattern);
  // The same, kept on the server: its handle. And what is received of a run that is kept.
  absl::StatusOr<std::string> Store(const engine::TokenizedPrompt& prompt, const std::string& name_pattern);
  absl::StatusOr<Transfer> GetActivation(const std::string& handle);

 private:
  LocalService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options);

  // Presents the token.
  void Authorize(grpc::ClientContext& context) const;

  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  std::string token_;

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  ModelService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::ModelService::Stub> stub_;
};

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_LOCAL_SERVICE_H_
