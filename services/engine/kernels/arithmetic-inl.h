// What the inner loops of multiply-inl.h are made of, with fp32 arithmetic: vectors, and the
// values of a decoded group. Compiled once for each instruction set, hence without the usual
// guard.

#if defined(SERVICES_ENGINE_KERNELS_ARITHMETIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_ARITHMETIC_INL_H_
#undef SERVICES_ENGINE_KERNELS_ARITHMETIC_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_ARITHMETIC_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/engine/kernels/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a panel is a whole number of vectors everywhere.
using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));
constexpr int kPanelVectors = kPanelOutputs / kLanes;

// How the rows of x are taken. kRowsPerBlock: for so many, a group is decoded once;
// kDirectRows: up to so many, its weights are decoded in registers instead.
struct ByRows {
  static constexpr int64_t kRowsPerBlock = 128;
  static constexpr int kDirectRows = 4;
};

struct NoTable {
  HWY_INLINE explicit NoTable(const float*) {}
};

// fp32: a step is one inner index.
struct FloatArithmetic {
  using Vector = VF;
  static constexpr int kSteps = 8;  // in 8 inner indices
  static HWY_INLINE VF MultiplyAdd(uint32_t x, VF w, VF sum) {
    return hn::MulAdd(hn::BitCast(F(), hn::Set(U(), x)), w, sum);
  }
};

// A format's Weights (multiply_*.cc) give step `kStep` of the 8 inner indices from 8 * octet on, for the
// panel's v-th vector of outputs. 16 outputs' octet fills kLinesPerOctet cache lines.
struct FloatWeights : ByRows {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesPerOctet = 8;
  const uint8_t* data;
  HWY_INLINE FloatWeights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int octet, int v) const {
    const auto* values = reinterpret_cast<const float*>(data);
    return hn::Load(F(), values + (8 * octet + kStep) * kPanelOutputs + v * kLanes);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
