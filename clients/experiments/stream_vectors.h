#ifndef CLIENTS_EXPERIMENTS_STREAM_VECTORS_H_
#define CLIENTS_EXPERIMENTS_STREAM_VECTORS_H_

#include <vector>

#include "absl/types/span.h"

namespace mechinterp {

// Vectors of the residual stream where each block reads it, at the decision positions: the last
// instruction token, and the template's tail after it.
struct StreamVectors {
  int layer_count = 0;
  int position_count = 0;
  size_t width = 0;
  std::vector<float> values;  // [layers, positions, width]

  absl::Span<const float> at(int layer, int position) const {
    const size_t index =
        static_cast<size_t>(layer) * static_cast<size_t>(position_count) + static_cast<size_t>(position);
    return absl::MakeConstSpan(values).subspan(index * width, width);
  }
  // From the prompt's end: -1 is the last.
  int from_end(int position) const { return position - position_count; }
};

// One of their sites.
struct StreamSite {
  int layer = 0;
  int position = 0;
};

// Of two of one shape.
StreamVectors operator-(StreamVectors a, const StreamVectors& b);
// Each vector at length 1; zeros stay.
StreamVectors UnitsOf(StreamVectors stream);

// A mean of means, each of so many. All must be of one shape; at least one.
class StreamMean {
 public:
  void Add(const StreamVectors& stream, size_t count);
  StreamVectors Mean() const;

 private:
  StreamVectors shape_;
  std::vector<double> sums_;
  size_t count_ = 0;
};

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_STREAM_VECTORS_H_
