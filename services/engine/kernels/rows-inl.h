// Vectors over the elements of rows, for rows.cc and gradient_rows.cc: included inside Highway's
// foreach_target, hence without the usual guard.

#if defined(SERVICES_ENGINE_KERNELS_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_ROWS_INL_H_
#undef SERVICES_ENGINE_KERNELS_ROWS_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using V = hn::Vec<Lanes>;
constexpr int kMaxLanes = HWY_MAX_BYTES / sizeof(float);

HWY_INLINE HWY_ATTR int64_t Step() { return static_cast<int64_t>(hn::Lanes(Lanes())); }

// The last count % Step() values, padded.
HWY_INLINE HWY_ATTR V LoadTail(const float* data, int64_t count, float padding) {
  float padded[kMaxLanes];
  std::fill(padded, padded + Step(), padding);
  std::copy(data, data + count, padded);
  return hn::LoadU(Lanes(), padded);
}
HWY_INLINE HWY_ATTR void StoreTail(V value, float* data, int64_t count) {
  float padded[kMaxLanes];
  hn::StoreU(value, Lanes(), padded);
  std::copy(padded, padded + count, data);
}

// One accumulator, in order; zeros pad the tail, so the result for a row does
// not change when zeros are appended to it.
HWY_INLINE HWY_ATTR float Dot(const float* a, const float* b, int64_t count) {
  const Lanes lanes;
  V sum = hn::Zero(lanes);
  int64_t i = 0;
  for (; i + Step() <= count; i += Step())
    sum = hn::MulAdd(hn::LoadU(lanes, a + i), hn::LoadU(lanes, b + i), sum);
  if (i < count) sum = hn::MulAdd(LoadTail(a + i, count - i, 0), LoadTail(b + i, count - i, 0), sum);
  return hn::GetLane(hn::SumOfLanes(lanes, sum));
}

// y[i] = function(a[i], b[i]), each element as it would be alone; y may be a or b.
template <typename Function>
HWY_ATTR void ForEach(const float* a, const float* b, int64_t count, float* y, const Function& function) {
  const Lanes lanes;
  int64_t i = 0;
  for (; i + Step() <= count; i += Step()) {
    hn::StoreU(function(hn::LoadU(lanes, a + i), hn::LoadU(lanes, b + i)), lanes, y + i);
  }
  if (i < count) {
    StoreTail(function(LoadTail(a + i, count - i, 0), LoadTail(b + i, count - i, 0)), y + i, count - i);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
