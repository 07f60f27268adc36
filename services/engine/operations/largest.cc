#include "services/engine/operations/largest.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "services/engine/kernels/logit_reductions.h"

namespace mechinterp::engine {

void FindLargest(absl::Span<const float> logits, int64_t count, std::vector<TokenId>& ids) {
  const auto size = static_cast<int64_t>(logits.size());
  constexpr int64_t kBlock = 64;  // skipped as a whole when nothing in it is large enough
  ids.clear();
  if (count <= 0) return;
  // Once `count` are found, only what is larger than the least of them matters:
  // what is as large has a higher id.
  bool full = false;
  float least = -std::numeric_limits<float>::infinity();
  auto keep_largest = [&] {
    if (static_cast<int64_t>(ids.size()) < count) return;
    std::nth_element(ids.begin(), ids.begin() + (count - 1), ids.end(), [&](TokenId a, TokenId b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    });
    ids.resize(count);
    least = logits[ids.back()];
    full = true;
  };
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t end = std::min(size, begin + kBlock);
    if (full && kernels::MaxValue(logits.data() + begin, end - begin) <= least) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (full ? logits[i] > least : !std::isnan(logits[i])) ids.push_back(static_cast<TokenId>(i));
    }
    if (static_cast<int64_t>(ids.size()) >= 2 * count) keep_largest();
  }
  keep_largest();
}

}  // namespace mechinterp::engine
