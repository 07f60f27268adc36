#include "clients/lib/health.h"

#include "absl/time/clock.h"
#include "google/protobuf/wrappers.pb.h"
#include "grpcpp/generic/generic_stub.h"
#include "mechinterp/v1/model_service.grpc.pb.h"  // Brings gRPC's traits of protobuf messages, wherever they lie.
#include "services/common/status.h"

namespace mechinterp {
namespace {

// gRPC's C++ packages do not ship the health service's types. These have the
// same wire format: HealthCheckRequest {string service = 1},
// HealthCheckResponse {ServingStatus status = 1}.
using HealthCheckRequest = google::protobuf::StringValue;
using HealthCheckResponse = google::protobuf::Int32Value;

}  // namespace

absl::StatusOr<ServingState> CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                                         absl::Duration timeout) {
  grpc::TemplatedGenericStub<HealthCheckRequest, HealthCheckResponse> stub(channel);
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  const HealthCheckRequest request;
  HealthCheckResponse response;
  grpc::Status outcome;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &outcome, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);  // The deadline ends it at the latest.
  if (absl::Status status = FromGrpcStatus(outcome); !status.ok()) return status;
  switch (response.value()) {
    case 1:
      return ServingState::kServing;
    case 2:
      return ServingState::kNotServing;
    default:
      return ServingState::kUnknown;
  }
}

}  // namespace mechinterp
