#include "services/rpc/server_call.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

// A client that was told why its call ended has this long to take it; then the stream is reset.
constexpr absl::Duration kTimeForLastWords = absl::Seconds(2);

absl::Status ClientLeft() { return absl::CancelledError("the client cancelled the request"); }

absl::Status DeadlineOver() { return absl::DeadlineExceededError("the request's deadline is over"); }

absl::Status ClientStalled(const std::string& what, absl::Duration limit) {
  return ErrorWithReason(absl::StatusCode::kAborted,
                         absl::StrCat("the client ", what, " for ", absl::FormatDuration(limit)),
                         "CLIENT_STALLED");
}

// What a client is told of an exception that came out of a handler.
absl::Status FaultOf(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return TryAgainLater("the server has no memory left for this request", "OUT_OF_MEMORY", absl::Seconds(5));
  }
  return ErrorWithReason(absl::StatusCode::kInternal, absl::StrCat("a fault of the server: ", error.what()),
                         "INTERNAL_FAULT");
}

}  // namespace

ServerCall::ServerCall(Setup setup)
    : setup_(std::move(setup)),
      start_(absl::Now()),
      deadline_(absl::FromChrono(setup_.context->deadline())),
      last_progress_(start_) {
  facts_.wants_prompt = setup_.wants_prompt;
}

void ServerCall::Begin() {
  if (!setup_.refusal.ok()) return EndHandler(setup_.refusal);
  StartRead(&request_);
}

void ServerCall::OnReadDone(bool ok) {
  if (!ok) {
    return EndHandler(ErrorWithReason(absl::StatusCode::kInvalidArgument, "the call came without a request",
                                      "MALFORMED_REQUEST"));
  }
  Enqueue();
}

void ServerCall::Enqueue() {
  WorkQueue::Task task;
  task.client = setup_.caller.name;
  task.weight = setup_.caller.weight;
  task.priority = priority();
  task.bytes = static_cast<int64_t>(request_.Length());
  task.client_max_tasks = setup_.caller.max_requests.value_or(0);
  task.run = [call = shared_from_this()] { call->Run(); };
  absl::Status refused;
  {
    const std::lock_guard lock(mutex_);  // so that a cancellation finds the ticket
    has_request_ = true;
    last_progress_ = absl::Now();
    if (!cancellation_.ok()) {
      refused = cancellation_;
    } else if (absl::StatusOr<WorkQueue::Ticket> ticket = setup_.queue->Submit(std::move(task));
               ticket.ok()) {
      ticket_ = *ticket;
    } else {
      refused = ticket.status();
    }
  }
  if (!refused.ok()) EndHandler(refused);
}

void ServerCall::Run() {
  {
    const std::lock_guard lock(mutex_);
    ticket_.reset();
    handler_start_ = absl::Now();
  }
  absl::Status status = cancellation();
  if (status.ok()) {
    try {
      status = setup_.method->handle(*this, request_);
    } catch (const std::exception& error) {
      status = FaultOf(error);
    }
  }
  request_.Clear();
  EndHandler(status);
}

absl::Status ServerCall::Write(grpc::ByteBuffer message) {
  std::unique_lock lock(mutex_);
  const auto may_go_on = [this] {
    return !cancellation_.ok() || pending_bytes_ < setup_.limits.stream_buffer_bytes;
  };
  if (!may_go_on()) {
    const WorkQueue::Pause pause(*setup_.queue, setup_.caller.name);
    drained_.wait(lock, may_go_on);
  }
  if (!cancellation_.ok()) return cancellation_;
  pending_bytes_ += static_cast<int64_t>(message.Length());
  pending_.push_back(std::move(message));
  // The last message of a call goes out together with its status.
  if (setup_.method->descriptor->server_streaming()) Pump(std::move(lock));
  return absl::OkStatus();
}

void ServerCall::SendRest(Source next) {
  const std::lock_guard lock(mutex_);
  if (cancellation_.ok()) source_ = std::move(next);
}

void ServerCall::EndHandler(const absl::Status& status) {
  std::unique_lock lock(mutex_);
  handler_ended_ = true;
  status_ = status;
  // What was written before an error is sent all the same.
  const Source dropped = status.ok() ? nullptr : std::exchange(source_, nullptr);
  Pump(std::move(lock));
}

void ServerCall::Pump(std::unique_lock<std::mutex> lock) {
  if (is_writing_ || is_finishing_) return;
  if (!cancellation_.ok() && handler_ended_) status_ = cancellation_;
  Source next;  // what it holds goes without the lock
  if (pending_.empty() && handler_ended_ && source_ != nullptr) {
    is_writing_ = true;  // keeps others out
    next = std::exchange(source_, nullptr);
    lock.unlock();
    std::optional<grpc::ByteBuffer> message = next();
    lock.lock();
    is_writing_ = false;
    if (!cancellation_.ok()) {
      status_ = cancellation_;
    } else if (message) {
      source_ = std::move(next);
      pending_bytes_ += static_cast<int64_t>(message->Length());
      pending_.push_back(*std::move(message));
    }
  }
  if (!pending_.empty()) {
    current_ = std::move(pending_.front());
    pending_.pop_front();
    ++messages_sent_;
    if (handler_ended_ && pending_.empty() && source_ == nullptr) {
      is_finishing_ = true;
      const grpc::Status status = ToGrpcStatus(status_);
      lock.unlock();
      return StartWriteAndFinish(&current_, grpc::WriteOptions(), status);
    }
    is_writing_ = true;
    lock.unlock();
    return StartWrite(&current_);
  }
  if (!handler_ended_) return;
  is_finishing_ = true;
  const grpc::Status status = ToGrpcStatus(status_);
  lock.unlock();
  Finish(status);
}

void ServerCall::OnWriteDone(bool ok) {
  std::unique_lock lock(mutex_);
  is_writing_ = false;
  pending_bytes_ -= static_cast<int64_t>(current_.Length());
  current_.Clear();
  last_progress_ = absl::Now();
  if (!ok && cancellation_.ok()) {
    cancellation_ = ClientLeft();
    is_cancelled_ = true;
  }
  drained_.notify_all();
  Pump(std::move(lock));
}

absl::Status ServerCall::DeadlineOr(const absl::Status& status, absl::Time now) const {
  // A client's own clock ends a call up to 1 % earlier than the server knows it: a timeout
  // travels rounded up.
  constexpr absl::Duration kTransit = absl::Milliseconds(100);
  return now >= deadline_ - (deadline_ - start_) / 100 - kTransit ? DeadlineOver() : status;
}

void ServerCall::OnCancel() { Cancel(DeadlineOr(ClientLeft(), absl::Now())); }

void ServerCall::Cancel(const absl::Status& status) {
  std::unique_lock lock(mutex_);
  if (!cancellation_.ok()) return;
  cancellation_ = status;
  is_cancelled_ = true;
  last_progress_ = absl::Now();
  drained_.notify_all();
  // Nothing more is sent, and what it would have been goes at once, without the lock: gRPC may
  // keep the message that it has for as long as the line is jammed.
  const Source dropped = std::exchange(source_, nullptr);
  for (const grpc::ByteBuffer& message : pending_) pending_bytes_ -= static_cast<int64_t>(message.Length());
  pending_.clear();
  if (ticket_ && setup_.queue->Withdraw(*ticket_)) {
    ticket_.reset();
    handler_ended_ = true;
  }
  Pump(std::move(lock));
}

void ServerCall::Withdraw(const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (!ticket_) return;
  }
  Cancel(status);
}

void ServerCall::CheckTime(absl::Time now) {
  absl::Status reason;
  {
    const std::lock_guard lock(mutex_);
    const absl::Duration since = now - last_progress_;
    const bool client_is_asked = is_writing_ || is_finishing_ || !has_request_;
    if (!cancellation_.ok() || is_finishing_) {
      const absl::Duration patience = cancellation_.ok() ? setup_.limits.stall : kTimeForLastWords;
      // Until gRPC is done with the call its context is there.
      if (!is_done_ && client_is_asked && since > patience && !std::exchange(was_cut_off_, true)) {
        setup_.context->TryCancel();
      }
      if (!cancellation_.ok()) return;
    }
    if (now > deadline_) {
      reason = DeadlineOver();
    } else if (is_writing_ && since > setup_.limits.stall) {
      reason = ClientStalled("has not read its stream", setup_.limits.stall);
    } else if (!has_request_ && since > setup_.limits.request) {
      reason = ClientStalled("has not sent its request", setup_.limits.request);
    }
  }
  if (!reason.ok()) Cancel(reason);
}

Priority ServerCall::priority() const {
  return std::max(setup_.method->traits.priority, setup_.caller.priority);
}

absl::Status ServerCall::cancellation() const {
  const std::lock_guard lock(mutex_);
  return cancellation_;
}

void ServerCall::OnDone() {
  {
    const std::lock_guard lock(mutex_);
    is_done_ = true;
  }
  setup_.on_done(*this);
}

RequestRecord ServerCall::Record() const {
  const std::lock_guard lock(mutex_);
  RequestRecord record;
  record.id = setup_.id;
  record.client = setup_.caller.name;
  record.peer = setup_.peer;
  record.method = setup_.method == nullptr ? "unknown" : setup_.method->path().substr(1);
  record.trace_id = setup_.trace_id;
  record.span_id = setup_.span_id;
  record.parent_span_id = setup_.parent_span_id;
  record.is_sampled = setup_.is_sampled;
  record.start = start_;
  record.status = status_.ok() ? cancellation_ : status_;
  const absl::Time now = absl::Now();
  record.took = now - start_;
  record.queued = std::min(handler_start_, now) - start_;
  record.messages_received = has_request_ ? 1 : 0;
  record.messages_sent = messages_sent_;
  record.facts = facts_;
  return record;
}

}  // namespace mechinterp
