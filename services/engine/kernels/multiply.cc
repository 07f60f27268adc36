#include "services/engine/kernels/multiply.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "services/common/float16.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/operands.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/arithmetic-inl.h"
#include "services/engine/kernels/pairs-inl.h"
#include "services/engine/kernels/rounding-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// One group of one row of x as the inner loops read it: `count` values rounded to the
// compute type, and zeros past the row's end.
HWY_ATTR void PackGroup(const float* row, int64_t count, const PackedMatrix& w, uint32_t* out) {
  auto* values = reinterpret_cast<float*>(out);
  int64_t i = 0;
  switch (w.compute) {
    case NumberFormat::kFloat32:
      std::copy(row, row + count, values);
      break;
    case NumberFormat::kBFloat16:
      for (; i + kLanes <= count; i += kLanes) {
        hn::StoreU(hn::BitCast(U(), RoundToBFloat16(hn::LoadU(F(), row + i))), U(), out + i);
      }
      for (; i < count; ++i) values[i] = BFloat16ToFloat(FloatToBFloat16(row[i]));
      break;
    default:
      for (; i < count; ++i) values[i] = RoundTo(w.compute, row[i]);
      break;
  }
  std::fill(values + count, values + w.group, 0.0f);
}

// Operands of products of bf16, for the instruction sets that can have them.
#if KERNELS_HAVE_BFLOAT16_PAIRS

HWY_ATTR void PackGroupInPairs(const float* row, int64_t count, const PackedMatrix& w, uint32_t* out) {
  auto* halves = reinterpret_cast<uint16_t*>(out);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const VU upper = hn::ShiftRight<16>(hn::BitCast(U(), RoundToBFloat16(hn::LoadU(F(), row + i))));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + i), _mm512_cvtepi32_epi16(upper.raw));
  }
  for (; i < count; ++i) halves[i] = FloatToBFloat16(row[i]);
  std::fill(halves + count, halves + w.group, uint16_t{0});
}

BFloat16Unit UnitOfTarget() { return DetectedBFloat16Unit(); }

#else

void PackGroupInPairs(const float*, int64_t, const PackedMatrix&, uint32_t*) {}
BFloat16Unit UnitOfTarget() { return BFloat16Unit::kNone; }

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(PackGroup);
HWY_EXPORT(PackGroupInPairs);
HWY_EXPORT(UnitOfTarget);

namespace {

// Whole groups of inner indices, [begin, end), of which rows hold the operands.
struct GroupRange {
  int64_t begin;
  int64_t end;

  int64_t count() const { return end - begin; }
  // Of a row.
  int64_t width(const PackedMatrix& w) const { return std::min(end * w.group, w.in) - begin * w.group; }
};

// All rows, group by group: [groups][n][group].
void PackOperands(const float* x, int64_t n, const PackedMatrix& w, const GroupRange& groups, bool pairs,
                  uint32_t* out) {
  constexpr int64_t kValuesWorthAThread = 1 << 16;
  const auto pack = pairs ? HWY_DYNAMIC_DISPATCH(PackGroupInPairs) : HWY_DYNAMIC_DISPATCH(PackGroup);
  const int64_t words = pairs ? w.group / 2 : w.group, width = groups.width(w);
  const int64_t grain = std::max<int64_t>(1, kValuesWorthAThread / (n * w.group));
  ParallelFor(0, groups.count(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t first = g * w.group, count = std::min<int64_t>(w.group, width - first);
      for (int64_t r = 0; r < n; ++r) pack(x + r * width + first, count, w, out + (g * n + r) * words);
    }
  });
}

constexpr float kLargestFloat16 = 65504;

// The exponent of the power of two by which a row of fp16 operands has to be divided, for its
// finite values to have fp16 ones: 0 for all but rows with values that it has not.
int ExponentBeyondFloat16(const float* row, int64_t width) {
  float largest = 0;
  for (int64_t i = 0; i < width; ++i) {
    const float size = std::abs(row[i]);
    if (size > largest && size <= std::numeric_limits<float>::max()) largest = size;
  }
  return largest > kLargestFloat16 ? std::ilogb(largest) - std::ilogb(kLargestFloat16) + 1 : 0;
}

void MultiplyGroups(const float* x, int64_t n, std::span<const Product> products, const GroupRange& groups);

// The same products where a row of fp16 operands needs it, as that row's parts. False, and
// nothing done, where none does.
bool MultiplyDivided(const float* x, int64_t n, std::span<const Product> products, const GroupRange& groups) {
  const int64_t width = groups.width(*products.front().w);
  std::vector<int> exponents(n);
  for (int64_t r = 0; r < n; ++r) exponents[r] = ExponentBeyondFloat16(x + r * width, width);
  if (std::all_of(exponents.begin(), exponents.end(), [](int exponent) { return exponent == 0; })) {
    return false;
  }
  std::vector<float> divided(x, x + n * width);
  for (int64_t i = 0; i < n * width; ++i) divided[i] = std::ldexp(divided[i], -exponents[i / width]);
  MultiplyGroups(divided.data(), n, products, groups);
  for (const Product& product : products) {
    const int64_t out = product.outputs.Of(*product.w).count();
    for (int64_t i = 0; i < n * out; ++i) product.y[i] = std::ldexp(product.y[i], exponents[i / out]);
  }
  return true;
}

// Of matrices that have their input, groups and compute type in common.
void MultiplyGroups(const float* x, int64_t n, std::span<const Product> products, const GroupRange& groups) {
  const PackedMatrix& first = *products[0].w;
  if (first.compute == NumberFormat::kFloat16 && MultiplyDivided(x, n, products, groups)) return;
  const BFloat16Unit unit = UnitFor(first.compute);
  const bool pairs = unit != BFloat16Unit::kNone;
  uint32_t* const operands =
      KeptOperands((groups.count() * n + kMostRowsPastTheLast) * first.group / (pairs ? 2 : 1));
  PackOperands(x, n, first, groups, pairs, operands);
  int64_t panels = 0;
  for (const Product& product : products) {
    const OutputRange outputs = product.outputs.Of(*product.w);
    panels += outputs.end_panel() - outputs.begin_panel();
  }
  const int64_t grain = std::max<int64_t>(
      1, kMultiplicationsWorthAThread / std::max<int64_t>(1, n * groups.width(first) * kPanelOutputs));
  const auto multiply = [&](int64_t begin, int64_t end) {
    for (const Product& product : products) {
      const Outputs y{product.y, product.outputs.Of(*product.w), groups.begin, groups.end};
      const int64_t first = y.range.begin_panel(), count = y.range.end_panel() - first;
      if (begin < count && end > 0) {
        InfoOf(product.w->format)
            .kernel->choose(unit)
            .multiply(*product.w, operands, n, first + std::max<int64_t>(begin, 0),
                      first + std::min(end, count), y);
      }
      begin -= count;
      end -= count;
    }
  };
  ParallelFor(0, panels, grain, multiply, products.back().w->next);
}

}  // namespace

BFloat16Unit UnitInUse() { return HWY_DYNAMIC_DISPATCH(UnitOfTarget)(); }

void MultiplyEach(const float* x, int64_t n, std::span<const Product> products) {
  if (n == 0 || products.empty()) return;
  const PackedMatrix& first = *products[0].w;
  const bool alike = std::all_of(products.begin(), products.end(), [&](const Product& product) {
    return product.w->in == first.in && product.w->group == first.group &&
           product.w->compute == first.compute;
  });
  if (alike) return MultiplyGroups(x, n, products, {0, first.groups()});
  for (const Product& each : products) MultiplyEach(x, n, std::span(&each, 1));
}

void MultiplyInputs(const float* x, int64_t n, const PackedMatrix& w, int64_t first_input, int64_t inputs,
                    float* y) {
  if (n == 0) return;
  const GroupRange groups{first_input / w.group, (first_input + inputs + w.group - 1) / w.group};
  const Product product{&w, y};
  const int64_t width = groups.width(w);
  if (width == inputs) return MultiplyGroups(x, n, std::span(&product, 1), groups);
  std::vector<float> padded(n * width);
  const int64_t offset = first_input - groups.begin * w.group;
  for (int64_t r = 0; r < n; ++r) std::copy_n(x + r * inputs, inputs, padded.data() + r * width + offset);
  MultiplyGroups(padded.data(), n, std::span(&product, 1), groups);
}

void Multiply(const float* x, int64_t n, const PackedMatrix& w, float* y) {
  const Product product{&w, y};
  MultiplyEach(x, n, std::span(&product, 1));
}

std::string InstructionSet() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;  // the machine's that are compiled
  const std::string name = hwy::TargetName(targets & -targets);
  return UnitInUse() == BFloat16Unit::kTiles ? name + " and AMX" : name;
}

}  // namespace mechinterp::engine::kernels
#endif
