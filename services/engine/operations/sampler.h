#ifndef SERVICES_ENGINE_OPERATIONS_SAMPLER_H_
#define SERVICES_ENGINE_OPERATIONS_SAMPLER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "services/engine/base/token_id.h"

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

// Chooses the tokens of a continuation from rows of logits. Filters as Hugging
// Face does: temperature, then top-k, then top-p over what is left. Greedy
// decoding takes the lowest id among equals; NaN logits are never chosen.
//
// Keeps buffers from token to token, and nothing else: a choice depends on the
// options, the row and the step alone. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(SamplingOptions options) : options_(std::move(options)) {}

  // The `step`-th token of the continuation.
  TokenId Choose(absl::Span<const float> logits, int step);

 private:
  struct Candidate {
    double weight;  // probability, not normalized
    TokenId id;
  };
  static bool IsLikelier(const Candidate& a, const Candidate& b);

  TokenId ChooseFromAll(absl::Span<const float> logits, TokenId greedy, double draw);
  TokenId LastBefore(int64_t end, TokenId greedy) const;
  TokenId ChooseFromCandidates(double draw);
  void FindTopK(absl::Span<const float> logits, double largest);
  void FindTopP(absl::Span<const float> logits, double largest);
  void KeepTopP(double wanted_weight);

  friend int64_t SamplerBytes(const SamplingOptions& options, int64_t vocabulary_size);

  const SamplingOptions options_;
  std::vector<double> weights_;        // of the whole row
  std::vector<double> block_weights_;  // their sums by blocks
  std::vector<TokenId> ids_;           // that top-k leaves
  std::vector<Candidate> candidates_;  // that the filters leave
};

// What a Sampler keeps for rows of so many logits; nothing when it is greedy.
int64_t SamplerBytes(const SamplingOptions& options, int64_t vocabulary_size);

// Chooses one token; for more than one of a continuation, keep a Sampler.
TokenId SampleToken(absl::Span<const float> logits, const SamplingOptions& options, int step);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_OPERATIONS_SAMPLER_H_
