#include "tests/services/rpc/fake_service.h"

#include <stdexcept>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/generic/generic_stub.h"
#include "services/common/status.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

absl::Status ManyViolations() {
  Violations violations;
  for (int i = 0; i < 500; ++i) violations.Add(absl::StrCat("field[", i, "]"), std::string(1000, 'x'));
  return ToStatus(violations);
}

void Prepare(grpc::ClientContext& context, absl::Duration patience, const std::string& token = "") {
  context.set_deadline(absl::ToChronoTime(absl::Now() + patience));
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
}

}  // namespace

absl::Status FakeService::Delete(Call& call) {
  {
    const std::lock_guard lock(mutex_);
    ++deletes_;
    changed_.notify_all();
  }
  absl::Status status = absl::OkStatus();
  while (!must_end) {
    if (call.IsCancelled()) {
      status = call.cancellation();
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (must_end) status = absl::UnavailableError("told to end");
  const std::lock_guard lock(mutex_);
  --deletes_;
  return status;
}

void FakeService::WaitForDeletes(int count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return deletes_ >= count; });
}

ServiceMethods FakeService::Methods() {
  const MethodTraits lookup;
  const MethodTraits work = {Lane::kWork};
  const MethodTraits write = {Lane::kLookup, Priority::kInteractive, Access::kWrite};
  ServiceMethods methods(v1::ListRunsRequest::descriptor()->file()->FindServiceByName("AnalysisService"));
  methods.AddUnary<v1::ListRunsRequest, v1::ListRunsResponse>(
      "ListRuns", lookup, [](Call&, const auto&, auto&) { return absl::OkStatus(); });
  methods.AddUnary<v1::ImportRunRequest, v1::ImportRunResponse>(
      "ImportRun", write, [](Call&, const auto&, auto&) { return absl::OkStatus(); });
  methods.AddUnary<v1::GetRunRequest, v1::GetRunResponse>(
      "GetRun", lookup, [](Call&, const auto&, auto&) { return ManyViolations(); });
  methods.AddUnary<v1::GetCircuitRequest, v1::GetCircuitResponse>(
      "GetCircuit", lookup, [](Call&, const auto&, auto&) { return absl::InternalError("two\nlines"); });
  methods.AddUnary<v1::GetRankingRequest, v1::GetRankingResponse>(
      "GetRanking", work, [this](Call&, const auto&, auto&) -> absl::Status {
        if (exception == "bad_alloc") throw std::bad_alloc();
        throw std::runtime_error(exception);
      });
  methods.AddUnary<v1::DeleteRunRequest, v1::DeleteRunResponse>(
      "DeleteRun", work, [this](Call& call, const auto&, auto&) { return Delete(call); });
  methods.AddStream<v1::ExportRunRequest, v1::ExportRunResponse>(
      "ExportRun", work, [this](Call&, const auto&, auto& writer) {
        ++streams_in_handlers;
        v1::ExportRunResponse message;
        absl::Status status;
        for (int i = 0; i < stream_count && status.ok(); ++i) {
          message.set_study_chunk(std::string(stream_bytes, static_cast<char>(i)));
          status = writer.Write(message);
        }
        --streams_in_handlers;
        return status;
      });
  methods.AddStream<v1::RenderDashboardRequest, v1::RenderDashboardResponse>(
      "RenderDashboard", work, [this](Call& call, const auto&, auto&) {
        ++streams_in_handlers;
        call.SendRest([this, i = 0]() mutable -> std::optional<grpc::ByteBuffer> {
          if (i++ == stream_count) return std::nullopt;
          v1::RenderDashboardResponse message;
          message.set_html(std::string(stream_bytes, 'x'));
          return Serialized(message);
        });
        --streams_in_handlers;
        return absl::OkStatus();
      });
  return methods;
}

FakeServer::FakeServer(RpcServerOptions options) {
  auto server = RpcServer::Start(options, {service_.Methods()});
  EXPECT_THAT(server, IsOk());
  server_ = *std::move(server);
}

std::string FakeServer::address() const { return absl::StrCat("127.0.0.1:", server_->port()); }

std::shared_ptr<grpc::Channel> FakeServer::NewChannel(grpc::ChannelArguments arguments) const {
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments);
}

std::unique_ptr<v1::AnalysisService::Stub> FakeServer::NewStub() const {
  return v1::AnalysisService::NewStub(NewChannel());
}

grpc::Status ListRuns(v1::AnalysisService::Stub& stub, absl::Duration patience, const std::string& token) {
  grpc::ClientContext context;
  Prepare(context, patience, token);
  v1::ListRunsResponse response;
  return stub.ListRuns(&context, {}, &response);
}

grpc::Status DeleteRun(v1::AnalysisService::Stub& stub, absl::Duration patience) {
  grpc::ClientContext context;
  Prepare(context, patience);
  v1::DeleteRunResponse response;
  return stub.DeleteRun(&context, {}, &response);
}

grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                     const std::string& request, const std::string& token, std::string* response) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  Prepare(context, absl::Seconds(20), token);
  const grpc::Slice slice(request);
  const grpc::ByteBuffer bytes(&slice, 1);
  const auto call = stub.PrepareUnaryCall(&context, path, bytes, &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (response != nullptr && status.ok()) {
    grpc::Slice whole;
    answer.DumpToSingleSlice(&whole);
    response->assign(whole.begin(), whole.end());
  }
  return status;
}

// In the service's wire format: no request, and one enum in the response.
int AskHealth(const std::shared_ptr<grpc::Channel>& channel) {
  std::string response;
  EXPECT_THAT(CallRaw(channel, "/grpc.health.v1.Health/Check", "", "", &response), IsOk());
  return response.size() == 2 ? response[1] : -1;
}

}  // namespace mechinterp
