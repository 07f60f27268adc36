#include "services/engine/weights/nf4_quantize.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/mean.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "services/engine/checkpoint/stored_values.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine {
namespace {

// linspace(0.1, 1, count) as libtorch computes it in fp32: from both ends, with
// fused multiply-adds.
std::vector<float> Boundaries(int count) {
  const float first = 0.1f, last = 1.0f, step = (last - first) / static_cast<float>(count - 1);
  std::vector<float> values(count);
  for (int i = 0; i < count; ++i) {
    values[i] = i < count / 2 ? std::fma(step, static_cast<float>(i), first)
                              : std::fma(-step, static_cast<float>(count - 1 - i), last);
  }
  return values;
}

std::array<float, 256> MakeDynamicMap() {
  constexpr int kExponents = 7;
  std::vector<float> values = {0.0f, 1.0f};
  for (int exponent = 0; exponent < kExponents; ++exponent) {
    const auto power = static_cast<float>(std::pow(10.0, exponent - (kExponents - 1)));
    const std::vector<float> bounds = Boundaries((1 << exponent) + 1);
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      const float mean = (bounds[i] + bounds[i + 1]) / 2;
      values.push_back(power * mean);
      values.push_back(-(power * mean));
    }
  }
  std::sort(values.begin(), values.end());
  std::array<float, 256> map;
  std::copy(values.begin(), values.end(), map.begin());
  return map;
}

// Replaces absmax by what is left of it after double quantization.
void QuantizeAbsmax(Nf4Matrix& matrix) {
  const auto blocks = static_cast<int64_t>(matrix.absmax.size());
  const std::array<float, 256>& map = DynamicMap();
  std::array<float, 255> bounds;
  for (int i = 0; i < 255; ++i) bounds[i] = (map[i] + map[i + 1]) / 2;

  NestedAbsmax nested;
  // The reference's own mean: the order of its additions shows in the last bit.
  nested.offset = at::from_blob(matrix.absmax.data(), {blocks}, at::kFloat).mean().item<float>();
  nested.codes.resize(blocks);
  for (int64_t first = 0; first < blocks; first += kNestedBlock) {
    const int64_t end = std::min(blocks, first + kNestedBlock);
    float largest = 0;
    for (int64_t i = first; i < end; ++i)
      largest = std::max(largest, std::abs(matrix.absmax[i] - nested.offset));
    nested.absmax.push_back(largest);
    const float inverse = 1.0f / std::max(largest, 1e-38f);
    for (int64_t i = first; i < end; ++i) {
      const float scaled = std::clamp((matrix.absmax[i] - nested.offset) * inverse, -1.0f, 1.0f);
      const auto code = std::lower_bound(bounds.begin(), bounds.end(), scaled) - bounds.begin();
      nested.codes[i] = static_cast<uint8_t>(code);
      matrix.absmax[i] = map[code] * largest + nested.offset;
    }
  }
  matrix.nested = std::move(nested);
}

}  // namespace

const std::array<float, 256>& DynamicMap() {
  static const std::array<float, 256> map = MakeDynamicMap();
  return map;
}

absl::StatusOr<Nf4Matrix> QuantizeToNf4(const TensorView& view, bool double_quantization) {
  const int64_t count = ElementCount(view.shape);
  const int64_t blocks = (count + kernels::kNf4Block - 1) / kernels::kNf4Block;
  const StoredValues values(view);
  Nf4Matrix matrix;
  matrix.shape = view.shape;
  matrix.code = kernels::kNf4Code;
  matrix.dtype = view.dtype;
  matrix.owned_codes.resize((count + 1) / 2);
  matrix.codes = matrix.owned_codes;
  matrix.absmax.resize(blocks);
  std::atomic<bool> finite = true;
  constexpr int64_t kBlocksWorthAThread = 1024;
  kernels::ParallelFor(0, blocks, kBlocksWorthAThread, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kernels::kNf4Block;
    if (!kernels::QuantizeNf4(values.At(first), values.type(),
                              std::min(count, end * kernels::kNf4Block) - first,
                              matrix.owned_codes.data() + first / 2, matrix.absmax.data() + begin)) {
      finite = false;
    }
  });
  if (!finite) return absl::InvalidArgumentError("holds a value that is not finite");
  if (double_quantization) QuantizeAbsmax(matrix);
  return matrix;
}

}  // namespace mechinterp::engine
