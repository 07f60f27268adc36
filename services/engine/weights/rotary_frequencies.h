#ifndef SERVICES_ENGINE_WEIGHTS_ROTARY_FREQUENCIES_H_
#define SERVICES_ENGINE_WEIGHTS_ROTARY_FREQUENCIES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// How fast the pairs of a head turn (Su et al. 2021), in radians per position, as a model's
// rope scaling has it. In fp32 like the reference implementation, whose angles round with
// them. Immutable: safe from any thread.
class RotaryFrequencies {
 public:
  RotaryFrequencies() = default;
  RotaryFrequencies(const ModelConfig& config, bool round_to_bfloat16);

  // Dh / 2.
  int64_t pairs() const { return static_cast<int64_t>(fixed_.size()); }
  // Of each pair, in a sequence of so many positions. Dynamic scaling alone depends on it,
  // and only past the original context.
  std::vector<float> At(int64_t sequence_length) const;
  // What cosines and sines are multiplied by; other than 1 for YaRN only.
  float magnitude() const { return magnitude_; }

 private:
  double theta_ = 10000;
  int head_size_ = 0;
  bool round_to_bfloat16_ = false;
  float magnitude_ = 1;
  std::optional<DynamicRope> dynamic_;
  std::vector<float> fixed_;  // of sequences within the original context
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_ROTARY_FREQUENCIES_H_
