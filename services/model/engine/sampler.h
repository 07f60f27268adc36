#ifndef SERVICES_MODEL_ENGINE_SAMPLER_H_
#define SERVICES_MODEL_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/model/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// How continuations are chosen; see SamplingOptions of the API.
struct SamplingOptions {
  int max_new_tokens = 64;
  double temperature = 0;  // 0: greedy
  int top_k = 0;           // 0: all
  double top_p = 1;
  uint64_t seed = 0;
  std::vector<TokenId> stop_token_ids;  // besides the model's own
  bool ignore_stop_tokens = false;      // the model's own
};

// Chooses the `step`-th token of a continuation from a row of logits. Depends on
// nothing but its arguments. Filters as Hugging Face does: temperature, then
// top-k, then top-p over what is left. Greedy decoding takes the lowest id among
// equals; NaN logits are never chosen.
TokenId SampleToken(absl::Span<const float> logits, const SamplingOptions& options, int step);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_SAMPLER_H_
