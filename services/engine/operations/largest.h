#ifndef SERVICES_ENGINE_OPERATIONS_LARGEST_H_
#define SERVICES_ENGINE_OPERATIONS_LARGEST_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// Puts into `ids` the `count` tokens with the largest logits, in no order; the
// lower id among equals, NaN never, so there may be fewer. Reads the row once and
// allocates nothing once `ids` has grown to twice `count`.
void FindLargest(absl::Span<const float> logits, int64_t count, std::vector<TokenId>& ids);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_LARGEST_H_
