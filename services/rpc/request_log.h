#ifndef SERVICES_RPC_REQUEST_LOG_H_
#define SERVICES_RPC_REQUEST_LOG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "services/rpc/call.h"

namespace mechinterp {

struct RequestLogOptions {
  bool as_json = false;
  // Prompts are told only where somebody asked for it.
  bool with_prompts = false;
};

// What is told of a call that has ended.
struct RequestRecord {
  int64_t id = 0;
  std::string client;
  std::string peer;    // "127.0.0.1:40312"
  std::string method;  // "mechinterp.v1.ModelService/Generate"
  // Of the W3C traceparent that came along, or new ones where spans are exported; empty without either.
  std::string trace_id;
  std::string span_id;         // of this request
  std::string parent_span_id;  // empty: the first of its trace
  bool is_sampled = true;      // whether whoever began the trace wants its spans
  absl::Status status;
  absl::Time start;
  absl::Duration took;
  absl::Duration queued;  // until its turn came
  int64_t messages_received = 0;
  int64_t messages_sent = 0;
  CallFacts facts;
};

// A line for the record: key=value pairs, or a JSON object. One line whatever a client sent, and
// of an error no more than its code, reason and message.
std::string FormatRecord(const RequestRecord& record, const RequestLogOptions& options);

// Writes it to spdlog's default logger: at info, and at warning where the status tells of a fault
// of the server (INTERNAL, UNKNOWN, DATA_LOSS). Thread-safe.
void LogRequest(const RequestRecord& record, const RequestLogOptions& options);

}  // namespace mechinterp

#endif  // SERVICES_RPC_REQUEST_LOG_H_
