#ifndef SERVICES_COMMON_TRACE_CONTEXT_H_
#define SERVICES_COMMON_TRACE_CONTEXT_H_

#include <optional>
#include <string>
#include <string_view>

namespace mechinterp {

// Which trace a call belongs to, and which span of it made the call: W3C Trace Context
// (https://www.w3.org/TR/trace-context/), as `traceparent` carries it.
struct TraceContext {
  std::string trace_id;  // 32 hex digits, lower case, not all 0
  std::string span_id;   // 16
  bool is_sampled = true;

  // "00-<trace id>-<span id>-01"
  std::string ToTraceparent() const;
};

// Of a traceparent's value; nothing where it is none that the standard allows. Of versions to come, what they
// have in common with 00.
std::optional<TraceContext> ParseTraceparent(std::string_view text);

// Of a new trace. Random; thread-safe.
TraceContext NewTrace();
std::string NewSpanId();

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TRACE_CONTEXT_H_
