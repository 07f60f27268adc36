#ifndef SERVICES_ENGINE_KERNELS_WEIGHT_KERNEL_H_
#define SERVICES_ENGINE_KERNELS_WEIGHT_KERNEL_H_

#include <algorithm>
#include <cstdint>

#include "services/common/float16.h"
#include "services/engine/kernels/bfloat16_unit.h"
#include "services/engine/kernels/matrix.h"

namespace mechinterp::engine::kernels {

// Where a product's outputs go: values [n, range], with none past the matrix's last in it. And what
// they are sums over: groups [begin_group, end_group) of inner indices, at least one.
struct Outputs {
  float* values;
  OutputRange range;
  int64_t begin_group;
  int64_t end_group;
};

// Panels [begin, end) of y[n, out] = x w^T, as far as they are wanted. x as MultiplyEach lays out
// operands, those of the wanted groups: fp32, or pairs of bf16. n is at least 1.
using MultiplyPanels = void(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin, int64_t end,
                            const Outputs& y);

// A group of a panel as a tile [64 outputs][64 columns] of the transposed matrix, in fp32 or in pairs
// of neighbouring outputs' bf16. Values are those before their scales; columns past the group's
// last are finite.
using DecodeTransposed = void(const PackedMatrix& w, const uint8_t* group, float* tile);

// In fp32, column k is inner index k. In pairs the columns are as the format's words are decoded:
// eight words of `values` inner indices, lying one after the other, give two of each at a time.
inline int ColumnOfPair(int inner, int values) {
  const int word = inner / values, pair = inner % values / 2;
  return 16 * (word / 8 * (values / 2) + pair) + word % 8 * 2 + inner % 2;
}

// A format's inner loops on one instruction set and unit.
struct Products {
  MultiplyPanels* multiply;
  DecodeTransposed* decode_transposed;
};

// What the CPU needs to know of a format of weights; each is defined in the file that it is
// named after, which packs and multiplies it. Thread-safe.
struct WeightKernel {
  // Fills a panel from its rows in fp32, see PackPanel.
  void (*pack)(PackedMatrix& matrix, int64_t panel, const float* rows);
  // What multiplies operands in fp32 (kNone) or in bf16, with the instruction set in use.
  Products (*choose)(BFloat16Unit unit);
};

extern const WeightKernel kFloat32Kernel;   // multiply_f32.cc
extern const WeightKernel kFloat16Kernel;   // multiply_f16.cc
extern const WeightKernel kBFloat16Kernel;  // multiply_bf16.cc
extern const WeightKernel kInt8Kernel;      // multiply_int8.cc
extern const WeightKernel kNf4Kernel;       // multiply_nf4.cc

// For packing. A panel's rows that there are, the bytes of one of its groups, and the 64
// scales that such a group ends with in formats that have them.
inline int64_t RowsInPanel(const PackedMatrix& matrix, int64_t panel) {
  return std::min<int64_t>(kPanelOutputs, matrix.out - panel * kPanelOutputs);
}
inline uint8_t* GroupData(PackedMatrix& matrix, int64_t panel, int64_t group) {
  return matrix.data.data() + panel * matrix.panel_bytes() + group * matrix.group_bytes();
}
inline float* Scales(PackedMatrix& matrix, uint8_t* group) {
  return reinterpret_cast<float*>(group + matrix.group_bytes() - kScaleBytes);
}
inline const uint8_t* GroupData(const PackedMatrix& matrix, int64_t panel, int64_t group) {
  return matrix.data.data() + panel * matrix.panel_bytes() + group * matrix.group_bytes();
}
inline const float* Scales(const PackedMatrix& matrix, const uint8_t* group) {
  return reinterpret_cast<const float*>(group + matrix.group_bytes() - kScaleBytes);
}

// Calls function(group's bytes, index in the group, output in the panel, value) for all of a
// panel's values.
template <typename Function>
void ForEachValue(PackedMatrix& matrix, int64_t panel, const float* rows, Function&& function) {
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    for (int64_t k = 0; k < matrix.in; ++k) {
      function(GroupData(matrix, panel, k / matrix.group), k % matrix.group, r, rows[r * matrix.in + k]);
    }
  }
}

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_WEIGHT_KERNEL_H_
