#include "tests/services/engine/kernels/products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "services/common/float16.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine::kernels {

std::vector<float> Random(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

float Rounded(NumberFormat compute, float value) {
  if (compute == NumberFormat::kBFloat16) return BFloat16ToFloat(FloatToBFloat16(value));
  if (compute == NumberFormat::kFloat16) return Float16ToFloat(FloatToFloat16(value));
  return value;
}

PackedMatrix Pack(NumberFormat format, NumberFormat compute, int64_t out, int64_t in,
                  const std::vector<float>& w) {
  PackedMatrix matrix = EmptyMatrix(format, compute, out, in);
  Allocate(matrix);
  for (int64_t panel = 0; panel < matrix.panels(); ++panel) {
    PackPanel(matrix, panel, w.data() + panel * kPanelOutputs * in);
  }
  return matrix;
}

Unscaled UnscaledOf(const Kind& kind, int64_t out, int64_t in, const std::vector<float>& w) {
  Unscaled result{w, std::vector<float>(w.size(), 1.0f)};
  if (kind.format == NumberFormat::kNf4) {
    std::vector<uint8_t> codes((w.size() + 1) / 2);
    std::vector<float> absmax((w.size() + kNf4Block - 1) / kNf4Block);
    EXPECT_TRUE(QuantizeNf4(w.data(), NumberFormat::kFloat32, out * in, codes.data(), absmax.data()));
    for (size_t i = 0; i < w.size(); ++i) {
      const int index = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
      result.values[i] = Rounded(kind.compute, kNf4Code[index]);
      result.scales[i] = absmax[i / kNf4Block];
    }
    return result;
  }
  if (kind.format == NumberFormat::kBFloat16 || kind.format == NumberFormat::kFloat16) {
    for (float& value : result.values) value = Rounded(kind.format, value);
    return result;
  }
  if (kind.format == NumberFormat::kFloat32) {
    for (float& value : result.values) value = Rounded(kind.compute, value);
    return result;
  }
  for (int64_t i = 0; i < out * in; ++i) {
    const int64_t row = i / in * in, first = row + (i - row) / kMaxGroup * kMaxGroup;
    float largest = 0;
    for (int64_t j = first; j < std::min(row + in, first + kMaxGroup); ++j) {
      largest = std::max(largest, std::abs(w[j]));
    }
    result.values[i] = std::nearbyint(w[i] * (127 / largest));
    result.scales[i] = largest / 127;
  }
  return result;
}

// SSE and Highway's portable code round twice.
bool FusesMultiplyAdd(const std::string& target) {
  for (const char* without : {"SSE2", "SSSE3", "SSE4", "EMU128", "SCALAR"}) {
    if (target == without) return false;
  }
  return true;
}

}  // namespace mechinterp::engine::kernels
