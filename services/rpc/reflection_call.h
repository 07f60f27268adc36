#ifndef SERVICES_RPC_REFLECTION_CALL_H_
#define SERVICES_RPC_REFLECTION_CALL_H_

#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "services/rpc/reflection.h"

namespace mechinterp {

// A stream of questions and answers with gRPC's callback API: no thread waits for it. Ended by
// the server when no question has come for a while. Owned by gRPC until it is done, and by
// whoever watches it.
class ReflectionCall final : public grpc::ServerGenericBidiReactor,
                             public std::enable_shared_from_this<ReflectionCall> {
 public:
  // `refusal`: answered at once with this status, unless it is OK. `on_done`: the last that gRPC
  // does with the call.
  ReflectionCall(grpc::GenericCallbackServerContext& context, std::shared_ptr<const Reflection> reflection,
                 const absl::Status& refusal, std::function<void(ReflectionCall*)> on_done);

  // Asks for the first question.
  void Begin();
  // Ends a stream that has been silent for too long, or that is to end anyway.
  void CheckTime(absl::Time now);
  void End();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone() override;

 private:
  grpc::GenericCallbackServerContext& context_;
  const std::shared_ptr<const Reflection> reflection_;
  const absl::Status refusal_;
  const std::function<void(ReflectionCall*)> on_done_;
  grpc::ByteBuffer question_, answer_;
  std::mutex mutex_;
  absl::Time last_progress_;
  bool is_done_ = false;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_REFLECTION_CALL_H_
