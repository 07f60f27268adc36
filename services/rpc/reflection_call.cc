#include "services/rpc/reflection_call.h"

#include <utility>

#include "absl/time/clock.h"
#include "services/common/status.h"
#include "services/rpc/call.h"

namespace mechinterp {
namespace {

constexpr absl::Duration kSilenceLimit = absl::Seconds(60);

}  // namespace

ReflectionCall::ReflectionCall(grpc::GenericCallbackServerContext& context,
                               std::shared_ptr<const Reflection> reflection, const absl::Status& refusal,
                               std::function<void(ReflectionCall*)> on_done)
    : context_(context),
      reflection_(std::move(reflection)),
      refusal_(refusal),
      on_done_(std::move(on_done)),
      last_progress_(absl::Now()) {}

void ReflectionCall::Begin() {
  if (!refusal_.ok()) return Finish(ToGrpcStatus(refusal_));
  StartRead(&question_);
}

void ReflectionCall::OnReadDone(bool ok) {
  if (!ok) return Finish(grpc::Status::OK);  // no more questions
  grpc::reflection::v1::ServerReflectionRequest request;
  using Traits = grpc::SerializationTraits<grpc::reflection::v1::ServerReflectionRequest>;
  if (!Traits::Deserialize(&question_, &request).ok()) {
    return Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "this is no question of grpc.reflection"));
  }
  answer_ = Serialized(reflection_->Answer(request));
  StartWrite(&answer_);
}

void ReflectionCall::OnWriteDone(bool ok) {
  if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the client has left"));
  {
    const std::lock_guard lock(mutex_);
    last_progress_ = absl::Now();
  }
  StartRead(&question_);
}

void ReflectionCall::CheckTime(absl::Time now) {
  const std::lock_guard lock(mutex_);
  if (!is_done_ && now - last_progress_ > kSilenceLimit) context_.TryCancel();
}

void ReflectionCall::End() {
  const std::lock_guard lock(mutex_);
  if (!is_done_) context_.TryCancel();
}

void ReflectionCall::OnDone() {
  {
    const std::lock_guard lock(mutex_);
    is_done_ = true;
  }
  on_done_(this);
}

}  // namespace mechinterp
