#include "services/engine/operations/softmax_attribution.h"

#include <algorithm>
#include <cmath>

namespace mechinterp::engine {

SoftmaxAttribution::SoftmaxAttribution(const ModelConfig& config, int layer, const Operands& clean,
                                       const HostTensor& source, const RotaryFrequencies& rotary,
                                       const HostTensor& gradient)
    : config_(config),
      window_(config.layers[layer].window),
      clean_(clean),
      gradient_(gradient),
      length_(clean.query.shape[0]),
      offset_(source.shape[0] - length_),
      turned_(offset_ == 0 ? HostTensor() : Turned(source, rotary)),
      source_(offset_ == 0 ? source : turned_) {}

HostTensor SoftmaxAttribution::Turned(const HostTensor& source, const RotaryFrequencies& rotary) const {
  HostTensor turned = source;
  const int64_t half = rotary.pairs(), heads = source.shape[1];
  const std::vector<float> here = rotary.At(length_), there = rotary.At(source.shape[0]);
  for (int64_t i = AlignedFrom(); i < length_; ++i) {
    for (int64_t j = 0; j < half; ++j) {
      const double angle =
          double{static_cast<float>(i) * here[j]} - double{static_cast<float>(i + offset_) * there[j]};
      const double cosine = std::cos(angle), sine = std::sin(angle);
      for (int64_t head = 0; head < heads; ++head) {
        float* pair = turned.values.data() + ((i + offset_) * heads + head) * 2 * half + j;
        const double x = pair[0], y = pair[half];
        pair[0] = static_cast<float>(x * cosine - y * sine);
        pair[half] = static_cast<float>(y * cosine + x * sine);
      }
    }
  }
  return turned;
}

int64_t SoftmaxAttribution::First(int64_t query) const {
  return window_ == 0 ? 0 : std::max<int64_t>(0, query + 1 - window_);
}

double SoftmaxAttribution::Score(const HostTensor& queries, int64_t i, int64_t head, const HostTensor& keys,
                                 int64_t t) const {
  const int64_t size = config_.head_size, group = config_.head_count / config_.key_value_head_count;
  const float* query = queries.values.data() + (i * config_.head_count + head) * size;
  const float* key = keys.values.data() + (t * config_.key_value_head_count + head / group) * size;
  double dot = 0;
  for (int64_t j = 0; j < size; ++j) dot += double{query[j]} * key[j];
  return dot / std::sqrt(static_cast<double>(size));
}

std::vector<double> SoftmaxAttribution::Pattern(const HostTensor& queries, int64_t query_row, int64_t i,
                                                int64_t head) const {
  std::vector<double> pattern;
  for (int64_t t = First(i); t <= i; ++t) pattern.push_back(Score(queries, query_row, head, clean_.key, t));
  const double largest = *std::max_element(pattern.begin(), pattern.end());
  double total = 0;
  for (double& value : pattern) total += value = std::exp(value - largest);
  for (double& value : pattern) value /= total;
  return pattern;
}

const float* SoftmaxAttribution::Gradient(int64_t i, int64_t head) const {
  return gradient_.values.data() + (i * config_.head_count + head) * length_;
}

HostTensor SoftmaxAttribution::OfQueries() const {
  HostTensor scores{{length_, config_.head_count}, std::vector<float>(length_ * config_.head_count)};
  for (int64_t i = AlignedFrom(); i < length_; ++i) {
    for (int64_t head = 0; head < config_.head_count; ++head) {
      const std::vector<double> before = Pattern(clean_.query, i, i, head);
      const std::vector<double> after = Pattern(source_, i + offset_, i, head);
      const float* gradient = Gradient(i, head) + First(i);
      double sum = 0;
      for (size_t t = 0; t < before.size(); ++t) sum += (after[t] - before[t]) * gradient[t];
      scores.values[i * config_.head_count + head] = static_cast<float>(sum);
    }
  }
  return scores;
}

// A score that changes by d makes p of p_t: p_t e^d / z, and of all others p / z, where
// z = 1 + p_t (e^d - 1).
HostTensor SoftmaxAttribution::OfKeys() const {
  const int64_t groups = config_.key_value_head_count, group = config_.head_count / groups;
  HostTensor scores{{length_, groups}, std::vector<float>(length_ * groups)};
  for (int64_t i = 0; i < length_; ++i) {
    for (int64_t head = 0; head < config_.head_count; ++head) {
      const std::vector<double> pattern = Pattern(clean_.query, i, i, head);
      const float* gradient = Gradient(i, head);
      double mean = 0;
      for (size_t t = 0; t < pattern.size(); ++t) mean += pattern[t] * gradient[First(i) + t];
      for (int64_t t = std::max(AlignedFrom(), First(i)); t <= i; ++t) {
        const double change =
            Score(clean_.query, i, head, source_, t + offset_) - Score(clean_.query, i, head, clean_.key, t);
        const double grown = pattern[t - First(i)] * std::expm1(change);
        const double after = (mean + grown * gradient[t]) / (1 + grown);
        scores.values[t * groups + head / group] += static_cast<float>(after - mean);
      }
    }
  }
  return scores;
}

}  // namespace mechinterp::engine
