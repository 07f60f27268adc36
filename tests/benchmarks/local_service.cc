#include "tests/benchmarks/local_service.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/rpc/token_access.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

v1::Prompt ToProto(const engine::TokenizedPrompt& prompt) {
  v1::Prompt result;
  for (engine::TokenId id : prompt.ids) result.mutable_token_ids()->add_ids(static_cast<uint32_t>(id));
  return result;
}

template <typename Response>
absl::StatusOr<Transfer> ReadChunks(grpc::ClientReader<Response>& reader) {
  Transfer transfer;
  Clock::time_point header;
  Response response;
  while (reader.Read(&response)) {
    if (response.has_header()) header = Clock::now();
    if (response.has_chunk()) transfer.bytes += static_cast<int64_t>(response.chunk().data().size());
  }
  ABSTRACT_RETURN_IF_ERROR(FromGrpcStatus(reader.Finish()));
  transfer.seconds = SecondsSince(header);
  return transfer;
}

}  // namespace

LocalService::LocalService(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options)
    : service_(std::move(model), options, metrics_) {}

absl::StatusOr<std::unique_ptr<LocalService>> LocalService::Start(std::shared_ptr<const engine::Model> model,
                                                                  const ModelServiceOptions& options,
                                                                  int max_requests,
                                                                  const Security& security) {
  std::unique_ptr<LocalService> local(new LocalService(std::move(model), options));
  RpcServerOptions rpc;
  rpc.registry = local->registry_;
  rpc.dispatch.work.max_running = max_requests;
  rpc.tls = security.tls;
  if (!security.token_file.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(rpc.access, TokenAccess::Open(security.token_file));
  }
  ABSTRACT_ASSIGN_OR_RETURN(local->server_, RpcServer::Start(rpc, {local->service_.Methods()}));
  ClientTlsOptions tls;
  tls.enabled = !security.tls.empty();
  tls.ca = security.authority;
  ABSTRACT_ASSIGN_OR_RETURN(local->credentials_, MakeChannelCredentials(tls));
  local->token_ = security.token;
  local->stub_ = local->NewStub();
  return local;
}

std::unique_ptr<v1::ModelService::Stub> LocalService::NewStub() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return v1::ModelService::NewStub(
      grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server_->port()), credentials_, arguments));
}

void LocalService::Authorize(grpc::ClientContext& context) const {
  if (!token_.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", token_));
}

absl::Status LocalService::Ping() {
  v1::DetokenizeRequest request;
  request.add_ids(5);
  v1::DetokenizeResponse response;
  grpc::ClientContext context;
  Authorize(context);
  return FromGrpcStatus(stub_->Detokenize(&context, request, &response));
}

absl::StatusOr<std::string> LocalService::Store(const engine::TokenizedPrompt& prompt,
                                                const std::string& name_pattern) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  request.mutable_filter()->add_name_patterns(name_pattern);
  request.set_store(true);
  grpc::ClientContext context;
  Authorize(context);
  const auto reader = stub_->RunWithCache(&context, request);
  v1::RunWithCacheResponse response;
  std::string handle;
  while (reader->Read(&response)) {
    if (response.has_summary()) handle = response.summary().handle();
  }
  ABSTRACT_RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
  return handle;
}

absl::StatusOr<Transfer> LocalService::GetActivation(const std::string& handle) {
  v1::GetActivationRequest request;
  request.set_handle(handle);
  grpc::ClientContext context;
  Authorize(context);
  return ReadChunks(*stub_->GetActivation(&context, request));
}

absl::Status LocalService::Generate(const engine::TokenizedPrompt& prompt, int new_tokens,
                                    const std::function<void()>& on_token) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(new_tokens));
  request.mutable_sampling()->set_ignore_stop_tokens(true);
  grpc::ClientContext context;
  Authorize(context);
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_token()) on_token();
  }
  return FromGrpcStatus(reader->Finish());
}

absl::StatusOr<Transfer> LocalService::RunWithCache(const engine::TokenizedPrompt& prompt,
                                                    const std::string& name_pattern) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = ToProto(prompt);
  request.mutable_filter()->add_name_patterns(name_pattern);
  grpc::ClientContext context;
  Authorize(context);
  return ReadChunks(*stub_->RunWithCache(&context, request));
}

}  // namespace mechinterp::benchmarks
