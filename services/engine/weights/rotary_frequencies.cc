#include "services/engine/weights/rotary_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <variant>

#include "services/common/float16.h"

namespace mechinterp::engine {
namespace {

// theta^(-2i / Dh) of each pair i, rounded as the reference implementation's.
std::vector<double> Unscaled(double theta, int head_size) {
  std::vector<double> frequencies(head_size / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / head_size;
    frequencies[i] = 1.0f / static_cast<float>(std::pow(theta, exponent));
  }
  return frequencies;
}

// The scaling of each type, in place.
struct Scale {
  const ModelConfig& config;
  std::vector<double>& frequencies;

  void operator()(const LinearRope& rope) const {
    for (double& frequency : frequencies) frequency /= rope.factor;
  }

  void operator()(const DynamicRope&) const {}  // none within the original context

  // Long wavelengths are divided by the factor, short ones kept, those between interpolated.
  void operator()(const Llama3Rope& rope) const {
    for (double& frequency : frequencies) {
      const double wavelength = 2 * std::numbers::pi / frequency;
      const double rotations = rope.original_context_length / wavelength;
      if (rotations < rope.low_freq_factor) {
        frequency /= rope.factor;
      } else if (rotations <= rope.high_freq_factor) {
        const double smooth =
            (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
      }
    }
  }

  // Pairs before `first` are kept, those from `last` on divided, those between interpolated.
  void operator()(const YarnRope& rope) const {
    double first = PairOf(rope, rope.beta_fast), last = PairOf(rope, rope.beta_slow);
    if (rope.truncate) {
      first = std::floor(first);
      last = std::ceil(last);
    }
    first = std::max(first, 0.0);
    last = std::min(last, config.head_size - 1.0);
    if (first == last) last += 0.001;
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double divided = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
      frequencies[i] *= divided / rope.factor + (1 - divided);
    }
  }

  // The pair that makes so many turns in the original context, between two where no whole one does.
  double PairOf(const YarnRope& rope, double turns) const {
    return config.head_size * std::log(rope.original_context_length / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(config.rope_theta));
  }
};

std::vector<float> Rounded(const std::vector<double>& frequencies, bool to_bfloat16) {
  std::vector<float> rounded(frequencies.begin(), frequencies.end());
  if (!to_bfloat16) return rounded;
  for (float& frequency : rounded) frequency = BFloat16ToFloat(FloatToBFloat16(frequency));
  return rounded;
}

}  // namespace

RotaryFrequencies::RotaryFrequencies(const ModelConfig& config, bool round_to_bfloat16)
    : theta_(config.rope_theta), head_size_(config.head_size), round_to_bfloat16_(round_to_bfloat16) {
  std::vector<double> frequencies = Unscaled(theta_, head_size_);
  if (config.rope_scaling) {
    std::visit(Scale{config, frequencies}, *config.rope_scaling);
    if (const auto* yarn = std::get_if<YarnRope>(&*config.rope_scaling)) {
      magnitude_ = static_cast<float>(yarn->attention_factor);
    }
    if (const auto* dynamic = std::get_if<DynamicRope>(&*config.rope_scaling)) dynamic_ = *dynamic;
  }
  fixed_ = Rounded(frequencies, round_to_bfloat16);
}

std::vector<float> RotaryFrequencies::At(int64_t sequence_length) const {
  if (!dynamic_ || sequence_length <= dynamic_->original_context_length) return fixed_;
  const double stretch =
      dynamic_->factor * static_cast<double>(sequence_length) / dynamic_->original_context_length -
      (dynamic_->factor - 1);
  const double theta = theta_ * std::pow(stretch, head_size_ / (head_size_ - 2.0));
  return Rounded(Unscaled(theta, head_size_), round_to_bfloat16_);
}

}  // namespace mechinterp::engine
