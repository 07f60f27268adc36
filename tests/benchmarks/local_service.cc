#include "tests/benchmarks/local_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp::benchmarks {
namespace {

v1::Prompt ToProto(const engine::TokenizedPrompt& prompt) {
  v1::Prompt result;
  for (engine::TokenId id : prompt.ids) result.mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
  return result;
}

}  // namespace

LocalService::LocalService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options)
    : service_(std::move(model), options, metrics_) {}

absl::StatusOr<std::unique_ptr<LocalService>> LocalService::Start(std::shared_ptr<const engine::Model> model,
                                                                  const ModelServiceOptions& options,
                                                                  int max_requests) {
  std::unique_ptr<LocalService> local(new LocalService(std::move(model), options));
  RpcServerOptions rpc;
  rpc.registry = local->registry_;
  rpc.dispatch.work.max_running = max_requests;
  ABSTRACT_ASSIGN_OR_RETURN(local->server_, RpcServer::Start(rpc, {local->service_.Methods()}));
  local->stub_ = local->NewStub();
  return local;
}

std::unique_ptr<v1::ModelService::Stub> LocalService::NewStub() const {
  return v1::ModelService::NewStub(
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials()));
}

absl::Status LocalService::Generate(const engine::TokenizedPrompt& prompt, int new_tokens,
                                    const std::function<void()>& on_token) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(new_tokens));
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_token()) on_token();
  }
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<int64_t> LocalService::RunWithCache(const engine::TokenizedPrompt& prompt,
                                                   const std::string& name_pattern) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  request.mutable_filter()->add_name_patterns(name_pattern);
  grpc::ClientContext context;
  const auto reader = stub_->RunWithCache(&context, request);
  int64_t bytes = 0;
  v1::RunWithCacheResponse response;
  while (reader->Read(&response)) {
    if (response.has_chunk()) bytes += static_cast<int64_t>(response.chunk().data().size());
  }
  ABSTRACT_RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
  return bytes;
}

}  // namespace mechinterp::benchmarks
