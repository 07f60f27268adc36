#ifndef SERVICES_ENGINE_FORWARD_RUN_PASS_H_
#define SERVICES_ENGINE_FORWARD_RUN_PASS_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "services/engine/forward/segment.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// Takes all segments through the model together, in one packed batch: linear
// layers work on the rows of all of them, attention segment by segment. A
// segment's results do not depend on which others are in the batch.
//
// The segments must be well-formed (see Segment; tokens in the vocabulary,
// positions within the context), and no two may share a `cache`.
//
// ResourceExhausted when memory does not suffice, Internal when libtorch or a device's
// kernel fails otherwise; the segments' caches and activations are then as they were,
// so that they, or some of them, may be tried again.
// `abandoned` is asked between layers whether nobody wants the results any more: then
// Cancelled, with the segments as they were.
// One call at a time for each device; the CPU allows any number.
absl::Status RunPass(
    const Model& model, absl::Span<Segment* const> segments,
    absl::FunctionRef<bool()> abandoned = [] { return false; });

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_RUN_PASS_H_
