#ifndef SERVICES_ENGINE_KERNELS_MATRIX_H_
#define SERVICES_ENGINE_KERNELS_MATRIX_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "services/engine/kernels/buffer.h"
#include "services/engine/kernels/number_format.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine::kernels {

// Matrices for products y = x w^T on the CPU (multiply.h), with w in any format that has a WeightKernel,
// multiplied straight from that form. Highway: one source for every instruction set, the
// best chosen at run time.
//
// Layout. Outputs are taken 64 at a time, a *panel*; the inner index in *groups*
// of 64 (of a divisor of 64 where NF4's blocks ask for it). All of a panel's
// bytes lie together in the order they are needed, so that a product streams
// through the matrix once. A vector holds the same inner index of neighbouring
// outputs: no sums across lanes.
//
// Batch invariance: an output is, group by group in order and in each group half
// by half, the sum of the half's products in order, times the group's scale, added
// to a running total by one fused multiply-add. (The first half has the odd eight
// of indices of a group of 8 or 24.) Products of bf16 in tiles (UnitInUse) have an order
// of their own: a group's sum is, 32 indices after the other, that of the even ones'
// products in order plus that of the odd ones'. Neither the number of rows nor of
// threads changes that, so a row's bits are the same alone and in any batch. In fp32
// they are the same on every instruction set with fused multiply-add.

inline constexpr int kPanelOutputs = 64;
inline constexpr int kMaxGroup = 64;
// Of a panel's scales for one group.
inline constexpr int64_t kScaleBytes = kPanelOutputs * sizeof(float);

// A matrix [out, in] packed for Multiply. Movable; immutable once packed. Bits per weight:
// the format's, and half of one for its scales (more for NF4 whose rows are not a multiple of
// 64 long).
struct PackedMatrix {
  NumberFormat format = NumberFormat::kFloat32;
  // What the operands of a product are rounded to before they are multiplied; sums are
  // always fp32. kBFloat16 uses the machine's own bf16 products where it has them
  // (MultipliesBFloat16), and computes in fp32 with rounded operands elsewhere; kFloat16
  // always does that, and a row of operands beyond its range is rounded as if it had been
  // divided by a power of two: nothing that is finite in fp32 overflows.
  NumberFormat compute = NumberFormat::kFloat32;
  int64_t out = 0;
  int64_t in = 0;
  int group = kMaxGroup;         // inner indices with one scale; divides 64
  std::array<float, 16> code{};  // kNf4: the value of each index, rounded to `compute`
  Buffer data;
  // A hint: what is usually multiplied after this, its data.
  PrefetchTarget next;

  int64_t bytes() const { return static_cast<int64_t>(data.size()); }
  int64_t panels() const { return (out + kPanelOutputs - 1) / kPanelOutputs; }
  int64_t groups() const { return (in + group - 1) / group; }
  // Bytes of one group of one panel, scales included.
  int64_t group_bytes() const;
  int64_t panel_bytes() const { return groups() * group_bytes(); }
};

// Some of a matrix's outputs: [begin, end).
struct OutputRange {
  int64_t begin = 0;
  int64_t end = std::numeric_limits<int64_t>::max();  // past the matrix's last: all there are

  int64_t count() const { return end - begin; }
  // Those that there are of a matrix, and the panels that they are in.
  OutputRange Of(const PackedMatrix& w) const { return {begin, std::min(end, w.out)}; }
  int64_t begin_panel() const { return begin / kPanelOutputs; }
  int64_t end_panel() const {
    return count() == 0 ? begin_panel() : (end + kPanelOutputs - 1) / kPanelOutputs;
  }
};

// A matrix of these sizes, without memory yet. CanHold(format, in) must hold.
PackedMatrix EmptyMatrix(NumberFormat format, NumberFormat compute, int64_t out, int64_t in);
// Whether rows of this length can be held in a format: blocks of NF4's flattened matrix must
// cut every row at multiples of 8.
bool CanHold(NumberFormat format, int64_t in);
// Of a matrix of these sizes.
int64_t PackedBytes(NumberFormat format, int64_t out, int64_t in);
void Allocate(PackedMatrix& matrix);

// Fills a panel of an allocated matrix; different panels may be filled from different
// threads at once. `rows`: the panel's own, first one first, contiguous; rows past `out` are
// not read. Rounded or quantized to the format, kFloat32 to the compute type.
void PackPanel(PackedMatrix& matrix, int64_t panel, const float* rows);

// NF4 that was quantized before: 4-bit indices, two a byte, the first in the high nibble;
// absmax of each block of 64 of the panel's flattened rows. The matrix's `code` is set once,
// before: to NF4's own by EmptyMatrix, or by SetCode.
void PackNf4Panel(PackedMatrix& matrix, int64_t panel, const uint8_t* codes, const float* absmax);
// In half precision the code is rounded, not each product of code and scale: the scale comes
// in after the sum.
void SetCode(PackedMatrix& matrix, const std::array<float, 16>& code);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_MATRIX_H_
