#ifndef SERVICES_RPC_SERVER_CALL_H_
#define SERVICES_RPC_SERVER_CALL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "services/rpc/call.h"
#include "services/rpc/request_log.h"
#include "services/rpc/service_methods.h"
#include "services/rpc/work_queue.h"

namespace mechinterp {

struct CallLimits {
  // How long a client may leave a message untaken.
  absl::Duration stall = absl::Seconds(60);
  // How long it may take to send its request.
  absl::Duration request = absl::Minutes(5);
  // What of a stream waits for the client before the handler does.
  int64_t stream_buffer_bytes = int64_t{4} << 20;
};

// One RPC with gRPC's callback API. Nothing in it blocks but Write, in the handler's thread:
//
//   coming -> request read -> waits in the queue -> handler runs -> what is left is sent -> ended
//
// Ended early by Cancel at any point. gRPC's threads, the handler's and the server's timer meet
// here. Dies when gRPC is done with it and nobody holds it any longer.
class ServerCall final : public grpc::ServerGenericBidiReactor,
                         public Call,
                         public std::enable_shared_from_this<ServerCall> {
 public:
  struct Setup {
    int64_t id = 0;
    grpc::GenericCallbackServerContext* context = nullptr;
    const Method* method = nullptr;  // null: `refusal` says why
    Caller caller;
    std::string peer, host;
    std::string trace_id, span_id, parent_span_id;  // as in RequestRecord
    bool is_sampled = true;
    absl::Status refusal;        // of a call that is not to be answered
    WorkQueue* queue = nullptr;  // where it waits
    CallLimits limits;
    bool wants_prompt = false;                 // for the log
    std::function<void(ServerCall&)> on_done;  // the last that gRPC does with it
  };

  explicit ServerCall(Setup setup);

  // Asks for the request, or refuses the call. Once, when others may know of it.
  void Begin();
  // Ends the call with this status as soon as its client takes it. For any thread.
  void Cancel(const absl::Status& status);
  // Looks after time: deadline, a client that neither sends nor reads. For the server's timer.
  void CheckTime(absl::Time now);
  // Takes the call back from the queue, if it is there, and ends it so.
  void Withdraw(const absl::Status& status);

  const Caller& caller() const override { return setup_.caller; }
  absl::Time arrival() const override { return start_; }
  Priority priority() const override;
  bool IsCancelled() const override { return is_cancelled_.load(std::memory_order_relaxed); }
  absl::Status cancellation() const override;
  absl::Status Write(grpc::ByteBuffer message) override;
  void SendRest(Source next) override;

  int64_t id() const { return setup_.id; }
  // What to tell of it, once gRPC is done with it.
  RequestRecord Record() const;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Enqueue();
  void Run();
  void EndHandler(const absl::Status& status);
  // Does what is next for gRPC to do, if it is time. Takes the lock along, and gives it back
  // before gRPC is called.
  void Pump(std::unique_lock<std::mutex> lock);
  absl::Status DeadlineOr(const absl::Status& status, absl::Time now) const;

  const Setup setup_;
  const absl::Time start_;
  const absl::Time deadline_;
  std::atomic<bool> is_cancelled_ = false;

  mutable std::mutex mutex_;
  std::condition_variable drained_;  // for Write
  grpc::ByteBuffer request_;
  std::optional<WorkQueue::Ticket> ticket_;  // while it waits
  absl::Time handler_start_ = absl::InfiniteFuture();
  std::deque<grpc::ByteBuffer> pending_;
  int64_t pending_bytes_ = 0;
  grpc::ByteBuffer current_;  // being written
  bool is_writing_ = false;
  bool has_request_ = false;
  bool handler_ended_ = false;
  bool is_finishing_ = false;
  bool was_cut_off_ = false;
  bool is_done_ = false;
  absl::Time last_progress_;
  absl::Status cancellation_;
  absl::Status status_;  // of the handler; then of the call
  Source source_;
  int64_t messages_sent_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_SERVER_CALL_H_
