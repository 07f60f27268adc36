#include "services/rpc/otlp_spans.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "services/common/status.h"
#include "services/common/version.h"

namespace mechinterp {
namespace {

using nlohmann::json;

// Of opentelemetry/proto/trace/v1/trace.proto.
constexpr int kSpanKindServer = 2;
constexpr int kStatusError = 2;
constexpr size_t kMaxErrorBytes = 300;

json Attribute(const char* key, json value) { return {{"key", key}, {"value", std::move(value)}}; }
json Text(const char* key, const std::string& value) { return Attribute(key, {{"stringValue", value}}); }
json Integer(const char* key, int64_t value) { return Attribute(key, {{"intValue", absl::StrCat(value)}}); }
json Seconds(const char* key, absl::Duration value) {
  return Attribute(key, {{"doubleValue", absl::ToDoubleSeconds(value)}});
}

std::string Nanoseconds(absl::Time time) { return absl::StrCat(absl::ToUnixNanos(time)); }

// As OpenTelemetry's conventions for gRPC have it: of what a client did wrong a server's span is no error.
bool IsServerError(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

json AttributesOf(const RequestRecord& request) {
  json attributes = json::array();
  attributes.push_back(Text("rpc.system", "grpc"));
  if (const size_t slash = request.method.find('/'); slash != std::string::npos) {
    attributes.push_back(Text("rpc.service", request.method.substr(0, slash)));
    attributes.push_back(Text("rpc.method", request.method.substr(slash + 1)));
  }
  attributes.push_back(Integer("rpc.grpc.status_code", request.status.raw_code()));
  attributes.push_back(Integer("abstract.request", request.id));
  attributes.push_back(Text("abstract.client", request.client));
  attributes.push_back(Seconds("abstract.queue_seconds", request.queued));
  attributes.push_back(Seconds("abstract.engine_wait_seconds", request.facts.engine_wait));
  attributes.push_back(Integer("abstract.passes", request.facts.passes));
  attributes.push_back(Integer("abstract.prompt_tokens", request.facts.prompt_tokens));
  attributes.push_back(Integer("abstract.new_tokens", request.facts.new_tokens));
  attributes.push_back(Integer("abstract.messages_sent", request.messages_sent));
  if (const std::string reason = ErrorReason(request.status); !reason.empty()) {
    attributes.push_back(Text("abstract.reason", reason));
  }
  return attributes;
}

json SpanOf(const RequestRecord& request) {
  json span = {{"traceId", request.trace_id},
               {"spanId", request.span_id},
               {"name", request.method},
               {"kind", kSpanKindServer},
               {"startTimeUnixNano", Nanoseconds(request.start)},
               {"endTimeUnixNano", Nanoseconds(request.start + request.took)},
               {"attributes", AttributesOf(request)}};
  if (!request.parent_span_id.empty()) span["parentSpanId"] = request.parent_span_id;
  json status = json::object();
  if (IsServerError(request.status.code())) {
    status = {{"code", kStatusError},
              {"message", std::string(request.status.message().substr(0, kMaxErrorBytes))}};
  }
  span["status"] = std::move(status);
  return span;
}

}  // namespace

std::string SpansAsJson(const SpanResource& resource, absl::Span<const RequestRecord> requests) {
  json spans = json::array();
  for (const RequestRecord& request : requests) spans.push_back(SpanOf(request));
  const json of_scope = {{"scope", {{"name", "abstract"}, {"version", kVersion}}},
                         {"spans", std::move(spans)}};
  const json of_resource = {
      {"resource",
       {{"attributes",
         json::array({Text("service.name", resource.service_name), Text("service.version", kVersion),
                      Text("service.instance.id", resource.instance_id)})}}},
      {"scopeSpans", json::array({of_scope})}};
  // What a client sent may be no UTF-8.
  return json({{"resourceSpans", json::array({of_resource})}})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace mechinterp
