#include "services/engine/forward/executor.h"

#include "services/common/status_macros.h"

namespace mechinterp::engine {

absl::Status DirectExecutor::Run(absl::Span<Segment* const> segments, absl::Duration*) {
  for (size_t begin = 0; begin < segments.size();) {
    size_t end = begin;
    int rows = 0;
    do {
      rows += segments[end++]->length();
    } while (end < segments.size() && rows + segments[end]->length() <= preferred_batch_rows());
    ABSTRACT_RETURN_IF_ERROR(RunPass(*model_, segments.subspan(begin, end - begin)));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status RunContext::Run(absl::Span<Segment* const> segments) {
  if (is_cancelled && is_cancelled()) return absl::CancelledError("the client cancelled the request");
  if (segments.empty()) return absl::OkStatus();
  ABSTRACT_RETURN_IF_ERROR(executor.Run(segments, &waited));
  for (const Segment* segment : segments) ABSTRACT_RETURN_IF_ERROR(segment->logits_status);
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
