#include "services/engine/kernels/matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "services/common/float16.h"
#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine::kernels {
namespace {

constexpr int64_t kScaleBytes = kPanelOutputs * sizeof(float);

int64_t RowsInPanel(const PackedMatrix& matrix, int64_t panel) {
  return std::min<int64_t>(kPanelOutputs, matrix.out - panel * kPanelOutputs);
}

uint8_t* GroupData(PackedMatrix& matrix, int64_t panel, int64_t group) {
  return matrix.data.data() + panel * matrix.panel_bytes() + group * matrix.group_bytes();
}

float* Scales(PackedMatrix& matrix, uint8_t* group) {
  return reinterpret_cast<float*>(group + matrix.group_bytes() - kScaleBytes);
}

float RoundTo(ComputeType compute, float value) {
  switch (compute) {
    case ComputeType::kBFloat16:
      return BFloat16ToFloat(FloatToBFloat16(value));
    case ComputeType::kFloat16:
      return Float16ToFloat(FloatToFloat16(value));
    case ComputeType::kFloat32:
      break;
  }
  return value;
}

// From eight indices as NF4 is stored, two a byte and the first in the high
// nibble, to the order of the products: even ones in the low half, odd in the high.
uint32_t SplitEvenOdd(uint32_t stored) {
  auto compress = [](uint32_t nibbles) {  // 0x0a0b0c0d -> 0xabcd
    nibbles = (nibbles | nibbles >> 4) & 0x00ff00ffu;
    return (nibbles | nibbles >> 8) & 0xffffu;
  };
  return compress(stored >> 4 & 0x0f0f0f0fu) | compress(stored & 0x0f0f0f0fu) << 16;
}

}  // namespace

int64_t PackedMatrix::group_bytes() const {
  const int64_t values = int64_t{group} * kPanelOutputs;
  switch (format) {
    case WeightFormat::kFloat32:
      return values * 4;
    case WeightFormat::kBFloat16:
      return values * 2;
    case WeightFormat::kInt8:
      return values + kScaleBytes;
    case WeightFormat::kNf4:
      return values / 2 + kScaleBytes;
  }
  return 0;
}

void Allocate(PackedMatrix& matrix) { matrix.data = Buffer(matrix.panels() * matrix.panel_bytes()); }

void RoundCode(PackedMatrix& matrix) {
  for (float& value : matrix.code) value = RoundTo(matrix.compute, value);
}

int Nf4Group(int64_t in) { return static_cast<int>(std::gcd<int64_t>(in, kMaxGroup)); }

bool CanPackNf4(int64_t in) { return Nf4Group(in) % 8 == 0; }

void PackFloatPanel(PackedMatrix& matrix, int64_t panel, const float* rows) {
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    for (int64_t k = 0; k < matrix.in; ++k) {
      const float value = rows[r * matrix.in + k];
      uint8_t* group = GroupData(matrix, panel, k / matrix.group);
      const int64_t i = k % matrix.group;
      if (matrix.format == WeightFormat::kFloat32) {
        reinterpret_cast<float*>(group)[i * kPanelOutputs + r] = RoundTo(matrix.compute, value);
      } else {
        reinterpret_cast<uint16_t*>(group)[(i / 2 * kPanelOutputs + r) * 2 + i % 2] = FloatToBFloat16(value);
      }
    }
  }
}

void PackInt8Panel(PackedMatrix& matrix, int64_t panel, const float* rows) {
  std::vector<int8_t> values(matrix.in);
  std::vector<float> scales(matrix.groups());
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    QuantizeInt8(rows + r * matrix.in, matrix.in, matrix.group, values.data(), scales.data());
    for (int64_t g = 0; g < matrix.groups(); ++g) {
      const int64_t first = g * matrix.group, count = std::min<int64_t>(matrix.group, matrix.in - first);
      uint8_t* group = GroupData(matrix, panel, g);
      Scales(matrix, group)[r] = scales[g];
      for (int64_t i = 0; i < count; ++i) {
        group[(i / 4 * kPanelOutputs + r) * 4 + i % 4] = static_cast<uint8_t>(values[first + i]);
      }
    }
  }
}

void PackNf4Panel(PackedMatrix& matrix, int64_t panel, const uint8_t* codes, const float* absmax) {
  const int64_t eighths = matrix.group / 8, row_words = matrix.in / 8;
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    for (int64_t g = 0; g < matrix.groups(); ++g) {
      uint8_t* group = GroupData(matrix, panel, g);
      auto* words = reinterpret_cast<uint32_t*>(group);
      for (int64_t e = 0; e < eighths; ++e) {
        uint32_t stored;
        std::memcpy(&stored, codes + (r * row_words + g * eighths + e) * 4, 4);
        words[e * kPanelOutputs + r] = SplitEvenOdd(stored);
      }
      Scales(matrix, group)[r] = absmax[(r * matrix.in + g * matrix.group) / kMaxGroup];
    }
  }
}

void UnpackPanel(const PackedMatrix& matrix, int64_t panel, float* rows) {
  auto& source = const_cast<PackedMatrix&>(matrix);  // read only
  for (int64_t r = 0; r < kPanelOutputs; ++r) {
    for (int64_t k = 0; k < matrix.in; ++k) {
      uint8_t* group = GroupData(source, panel, k / matrix.group);
      const int64_t i = k % matrix.group;
      float& value = rows[r * matrix.in + k];
      switch (matrix.format) {
        case WeightFormat::kFloat32:
          value = reinterpret_cast<const float*>(group)[i * kPanelOutputs + r];
          break;
        case WeightFormat::kBFloat16:
          value = BFloat16ToFloat(
              reinterpret_cast<const uint16_t*>(group)[(i / 2 * kPanelOutputs + r) * 2 + i % 2]);
          break;
        case WeightFormat::kInt8:
          value = static_cast<float>(static_cast<int8_t>(group[(i / 4 * kPanelOutputs + r) * 4 + i % 4])) *
                  Scales(source, group)[r];
          break;
        case WeightFormat::kNf4: {
          const uint32_t word = reinterpret_cast<const uint32_t*>(group)[i / 8 * kPanelOutputs + r];
          const int64_t shift = 4 * (i % 8 / 2) + 16 * (i % 2);
          value = matrix.code[word >> shift & 15] * Scales(source, group)[r];
          break;
        }
      }
    }
  }
}

}  // namespace mechinterp::engine::kernels
