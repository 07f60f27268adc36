#include "services/model/engine/executor.h"

#include "services/common/status_macros.h"

namespace mechinterp::engine {

absl::Status RunContext::Run(absl::Span<Segment* const> segments) {
  for (size_t begin = 0; begin < segments.size();) {
    if (is_cancelled && is_cancelled()) return absl::CancelledError("the client cancelled the request");
    size_t end = begin;
    int rows = 0;
    do {
      rows += segments[end++]->length();
    } while (end < segments.size() && rows + segments[end]->length() <= executor.preferred_batch_rows());
    ABSTRACT_RETURN_IF_ERROR(executor.Run(segments.subspan(begin, end - begin), &waited));
    begin = end;
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
