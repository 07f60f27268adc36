#include <ATen/Parallel.h>

#include <algorithm>

#include "services/model/engine/kernels/kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/model/engine/kernels/linear.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;

// One block of kRows x kOutputs outputs. Each has one vector accumulator that
// takes the products in order of the inner index, and is summed at the end: the
// order is the same in blocks of any size.
template <int kRows, int kOutputs>
HWY_ATTR void Block(const float* HWY_RESTRICT x, const float* HWY_RESTRICT w, int64_t in,
                    float* HWY_RESTRICT y, int64_t y_stride) {
  const Lanes lanes;
  const int64_t step = static_cast<int64_t>(hn::Lanes(lanes));
  using V = hn::Vec<Lanes>;
  V sums[kRows][kOutputs];
  for (auto& row : sums) {
    for (V& sum : row) sum = hn::Zero(lanes);
  }
  auto multiply = [&](const float* xs, int64_t x_stride, const float* ws, int64_t w_stride) HWY_ATTR {
    V weights[kOutputs];
    for (int o = 0; o < kOutputs; ++o) weights[o] = hn::LoadU(lanes, ws + o * w_stride);
    for (int r = 0; r < kRows; ++r) {
      const V row = hn::LoadU(lanes, xs + r * x_stride);
      for (int o = 0; o < kOutputs; ++o) sums[r][o] = hn::MulAdd(row, weights[o], sums[r][o]);
    }
  };
  int64_t k = 0;
  for (; k + step <= in; k += step) multiply(x + k, in, w + k, in);
  if (k < in) {  // the rest, padded with zeros
    float xs[kRows * HWY_MAX_BYTES / sizeof(float)] = {};
    float ws[kOutputs * HWY_MAX_BYTES / sizeof(float)] = {};
    for (int r = 0; r < kRows; ++r) std::copy(x + r * in + k, x + (r + 1) * in, xs + r * step);
    for (int o = 0; o < kOutputs; ++o) std::copy(w + o * in + k, w + (o + 1) * in, ws + o * step);
    multiply(xs, step, ws, step);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o) {
      y[r * y_stride + o] = hn::GetLane(hn::SumOfLanes(lanes, sums[r][o]));
    }
  }
}

// Wide vectors come with 32 registers, narrow ones with 16.
#if HWY_MAX_BYTES >= 64
constexpr int kBlockRows = 4;
#else
constexpr int kBlockRows = 2;
#endif
constexpr int kBlockOutputs = 4;

template <int kOutputs>
HWY_ATTR void Outputs(const float* x, int64_t n, int64_t in, const float* w, float* y, int64_t y_stride) {
  int64_t r = 0;
  for (; r + kBlockRows <= n; r += kBlockRows) {
    Block<kBlockRows, kOutputs>(x + r * in, w, in, y + r * y_stride, y_stride);
  }
  for (; r < n; ++r) Block<1, kOutputs>(x + r * in, w, in, y + r * y_stride, y_stride);
}

// Outputs [begin, end) of every row.
HWY_ATTR void LinearPart(const float* x, int64_t n, int64_t in, const float* w, int64_t begin, int64_t end,
                         int64_t out, float* y) {
  int64_t o = begin;
  for (; o + kBlockOutputs <= end; o += kBlockOutputs)
    Outputs<kBlockOutputs>(x, n, in, w + o * in, y + o, out);
  for (; o < end; ++o) Outputs<1>(x, n, in, w + o * in, y + o, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(LinearPart);

void Linear(const float* x, int64_t n, int64_t in, const float* w, int64_t out, float* y) {
  constexpr int64_t kMultiplicationsWorthAThread = 1 << 17;
  constexpr int64_t kGroup = 16;  // outputs; keeps threads off each other's cache lines
  const auto part = HWY_DYNAMIC_DISPATCH(LinearPart);
  const int64_t groups = (out + kGroup - 1) / kGroup;
  const int64_t grain =
      std::max<int64_t>(1, kMultiplicationsWorthAThread / std::max<int64_t>(1, n * in * kGroup));
  at::parallel_for(0, groups, grain, [&](int64_t begin, int64_t end) {
    part(x, n, in, w, begin * kGroup, std::min(end * kGroup, out), out, y);
  });
}

const char* InstructionSet() { return hwy::TargetName(hwy::SupportedTargets() & -hwy::SupportedTargets()); }

}  // namespace mechinterp::engine::kernels
#endif
