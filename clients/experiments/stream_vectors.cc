#include "clients/experiments/stream_vectors.h"

#include <algorithm>

#include "clients/experiments/direction_vectors.h"

namespace mechinterp {

StreamVectors operator-(StreamVectors a, const StreamVectors& b) {
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] -= b.values[i];
  return a;
}

StreamVectors UnitsOf(StreamVectors stream) {
  for (size_t first = 0; first < stream.values.size(); first += stream.width) {
    const std::vector<float> unit = UnitOf(absl::MakeConstSpan(stream.values).subspan(first, stream.width));
    std::copy(unit.begin(), unit.end(), stream.values.begin() + static_cast<std::ptrdiff_t>(first));
  }
  return stream;
}

void StreamMean::Add(const StreamVectors& stream, size_t count) {
  if (sums_.empty()) {
    shape_ = {stream.layer_count, stream.position_count, stream.width, {}};
    sums_.assign(stream.values.size(), 0);
  }
  for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += double{stream.values[i]} * static_cast<double>(count);
  count_ += count;
}

StreamVectors StreamMean::Mean() const {
  StreamVectors mean = shape_;
  for (const double sum : sums_) mean.values.push_back(static_cast<float>(sum / static_cast<double>(count_)));
  return mean;
}

}  // namespace mechinterp
