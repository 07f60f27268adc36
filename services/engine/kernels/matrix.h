#ifndef SERVICES_ENGINE_KERNELS_MATRIX_H_
#define SERVICES_ENGINE_KERNELS_MATRIX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "services/engine/kernels/bfloat16_unit.h"
#include "services/engine/kernels/buffer.h"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine::kernels {

// Matrix products y = x w^T on the CPU, with w in one of four formats, multiplied
// straight from that form. Highway: one source for every instruction set, the
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

// How a matrix is held. Bits per weight: 32, 16, 8.5 and 4.5 (more for NF4
// whose rows are not a multiple of 64 long).
enum class WeightFormat { kFloat32, kBFloat16, kInt8, kNf4 };

// What the operands of a product are rounded to before they are multiplied; sums
// are always fp32. kBFloat16 uses the machine's own bf16 products where it has
// them (MultipliesBFloat16), and computes in fp32 with rounded operands elsewhere;
// kFloat16 always does that.
enum class ComputeType { kFloat32, kBFloat16, kFloat16 };

// What bf16 is multiplied by, with the instruction set in use.
BFloat16Unit UnitInUse();
inline bool MultipliesBFloat16() { return UnitInUse() != BFloat16Unit::kNone; }

// A matrix [out, in] packed for Multiply. Movable; immutable once packed.
struct PackedMatrix {
  WeightFormat format = WeightFormat::kFloat32;
  ComputeType compute = ComputeType::kFloat32;
  int64_t out = 0;
  int64_t in = 0;
  int group = kMaxGroup;         // inner indices with one scale; divides 64
  std::array<float, 16> code{};  // kNf4: the value of each index, rounded to `compute`
  Buffer data;
  // A hint: what is usually multiplied after this, its data.
  WhatComesNext next;

  int64_t bytes() const { return static_cast<int64_t>(data.size()); }
  int64_t panels() const { return (out + kPanelOutputs - 1) / kPanelOutputs; }
  int64_t groups() const { return (in + group - 1) / group; }
  // Bytes of one group of one panel, scales included.
  int64_t group_bytes() const;
  int64_t panel_bytes() const { return groups() * group_bytes(); }
};

// The packers below fill panels [begin, end) of a matrix whose sizes and format
// are set and whose buffer is allocated (`Allocate`); different panels may be
// filled from different threads at once. Sources are the panels' own rows, first
// one first, contiguous; rows past `out` are not read.
void Allocate(PackedMatrix& matrix);

// From fp32 values, rounded to the format (kFloat32 to the compute type).
void PackFloatPanel(PackedMatrix& matrix, int64_t panel, const float* rows);
// kInt8: each group of a row by its own scale absmax / 127, rounded to nearest.
void PackInt8Panel(PackedMatrix& matrix, int64_t panel, const float* rows);
// kNf4: 4-bit indices, two a byte, the first in the high nibble; absmax of each
// block of 64 of the panel's flattened rows.
void PackNf4Panel(PackedMatrix& matrix, int64_t panel, const uint8_t* codes, const float* absmax);
// Rounds the matrix's code to its compute type; once it is set.
void RoundCode(PackedMatrix& matrix);
// Whether rows of this length can be held as NF4: blocks of the flattened matrix
// must cut every row at multiples of 8.
bool CanPackNf4(int64_t in);
// The group size for NF4 rows of this length: gcd(in, 64).
int Nf4Group(int64_t in);

// The values of one panel's rows as Multiply sees them: rows [kPanelOutputs, in].
void UnpackPanel(const PackedMatrix& matrix, int64_t panel, float* rows);

// y[n, out] = x[n, in] w^T. fp32 in and out, contiguous, not overlapping. Uses
// the pool of parallel.h; thread-safe.
void Multiply(const float* x, int64_t n, const PackedMatrix& w, float* y);

// The same for several matrices at once, of one input length, group and compute
// type (else one after the other): threads then wait for each other only once.
struct Product {
  const PackedMatrix* w;
  float* y;
};
void MultiplyEach(const float* x, int64_t n, std::span<const Product> products);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_MATRIX_H_
