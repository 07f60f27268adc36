#ifndef SERVICES_RPC_CALL_H_
#define SERVICES_RPC_CALL_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/byte_buffer.h"
#include "services/rpc/caller.h"
// How gRPC reads and writes messages; newer versions keep it elsewhere.
#if __has_include("grpcpp/impl/proto_utils.h")
#include "grpcpp/impl/proto_utils.h"
#else
#include "grpcpp/impl/codegen/proto_utils.h"
#endif

namespace mechinterp {

// What the log and the metrics tell of a call, beside what every call has. For its handler to
// fill in.
struct CallFacts {
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;
  absl::Duration engine_wait;
  int64_t passes = 0;         // forward passes that it had a part in
  bool wants_prompt = false;  // whether the log tells prompts
  std::string prompt;         // the first, where it does
};

// One RPC, as its handler sees it. The handler runs on a thread of a WorkQueue and returns the
// call's status; it may write messages before, if the method streams.
class Call {
 public:
  virtual ~Call() = default;

  virtual const Caller& caller() const = 0;
  // When it came in; its handler began when its turn had come.
  virtual absl::Time arrival() const = 0;
  // The method's, or the caller's where that is less urgent.
  virtual Priority priority() const = 0;
  // Whether nobody waits for the answer any longer: the client has left or does not read, the
  // deadline is over, the token was revoked, or the server stops. Thread-safe.
  virtual bool IsCancelled() const = 0;
  // Why, as the client shall see it; OK while it is not.
  virtual absl::Status cancellation() const = 0;

  // Sends a message after those before it. Returns at once while the client keeps up. If it
  // does not, waits until it does, as long as it may (RpcServerOptions::stall_limit); another
  // request runs in this one's stead meanwhile. Errors: as `cancellation`.
  virtual absl::Status Write(grpc::ByteBuffer message) = 0;

  // What is left to send once the handler has returned OK: `next` is asked for a message each
  // time that the client has taken the one before, on a thread of gRPC's, so it must be quick;
  // nothing ends the call. It keeps what it needs, and is destroyed when the call ends. So an
  // answer that is complete waits for its reader without a thread. For the handler's thread.
  using Source = std::function<std::optional<grpc::ByteBuffer>()>;
  virtual void SendRest(Source next) = 0;

  // For the handler's thread.
  CallFacts& facts() { return facts_; }

 protected:
  CallFacts facts_;
};

// A message as it goes over the wire.
template <typename Message>
grpc::ByteBuffer Serialized(const Message& message) {
  grpc::ByteBuffer buffer;
  bool own_buffer = false;
  (void)grpc::SerializationTraits<Message>::Serialize(message, &buffer, &own_buffer);
  return buffer;
}

// The messages of a stream. For the handler's thread; the call must outlive it.
template <typename Message>
class MessageWriter {
 public:
  explicit MessageWriter(Call& call) : call_(call) {}
  absl::Status Write(const Message& message) { return WriteSerialized(Serialized(message)); }
  // One that was serialized by hand.
  absl::Status WriteSerialized(grpc::ByteBuffer message) { return call_.Write(std::move(message)); }

 private:
  Call& call_;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_CALL_H_
