#ifndef SERVICES_RPC_OTLP_SPANS_H_
#define SERVICES_RPC_OTLP_SPANS_H_

#include <string>

#include "absl/types/span.h"
#include "services/rpc/request_log.h"

namespace mechinterp {

// Who makes the spans, as OpenTelemetry names it.
struct SpanResource {
  std::string service_name;  // "abstract-model-server"
  std::string instance_id;   // of this process, among those of one name
};

// An ExportTraceServiceRequest in OTLP's JSON (ids in hex, 64-bit numbers as strings): a server's span for
// each request, named as its method, with what the log tells of it but prompts. Errors are those that
// OpenTelemetry calls a server's own: INTERNAL and the like, not a client's mistakes.
std::string SpansAsJson(const SpanResource& resource, absl::Span<const RequestRecord> requests);

}  // namespace mechinterp

#endif  // SERVICES_RPC_OTLP_SPANS_H_
