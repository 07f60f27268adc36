#include <algorithm>
#include <cmath>
#include <limits>

#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/kernels/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/model/engine/kernels/rows.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes = hn::ScalableTag<float>;
using V = hn::Vec<Lanes>;
constexpr int kMaxLanes = HWY_MAX_BYTES / sizeof(float);

HWY_ATTR int64_t Step() { return static_cast<int64_t>(hn::Lanes(Lanes())); }

// The last count % Step() values, padded.
HWY_ATTR V LoadTail(const float* data, int64_t count, float padding) {
  float padded[kMaxLanes];
  std::fill(padded, padded + Step(), padding);
  std::copy(data, data + count, padded);
  return hn::LoadU(Lanes(), padded);
}
HWY_ATTR void StoreTail(V value, float* data, int64_t count) {
  float padded[kMaxLanes];
  hn::StoreU(value, Lanes(), padded);
  std::copy(padded, padded + count, data);
}

// One accumulator, in order; zeros pad the tail, so the result for a row does
// not change when zeros are appended to it.
HWY_ATTR float Dot(const float* a, const float* b, int64_t count) {
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

HWY_ATTR void Divide(const float* x, float scale, int64_t count, float* y) {
  const V divisor = hn::Set(Lanes(), scale);
  ForEach(x, x, count, y, [&](V v, V) HWY_ATTR { return hn::Div(v, divisor); });
}

HWY_ATTR void MultiplyElements(const float* a, const float* b, int64_t count, float* y) {
  ForEach(a, b, count, y, [](V v, V w) HWY_ATTR { return hn::Mul(v, w); });
}

HWY_ATTR void AddElements(const float* a, const float* b, int64_t count, float* y) {
  ForEach(a, b, count, y, [](V v, V w) HWY_ATTR { return hn::Add(v, w); });
}

HWY_ATTR void SiluMultiplyElements(const float* gate, const float* up, int64_t count, float* y) {
  const Lanes lanes;
  ForEach(gate, up, count, y, [&](V g, V u) HWY_ATTR {
    const V denominator = hn::Add(hn::Set(lanes, 1.0f), hn::Exp(lanes, hn::Neg(g)));
    return hn::Mul(hn::Div(g, denominator), u);
  });
}

// One head: x[i] and x[i + half] turn by the i-th angle.
HWY_ATTR void RotateHead(float* x, int64_t half, const float* cosines, const float* sines) {
  const Lanes lanes;
  auto rotate = [](V& first, V& second, V cosine, V sine) HWY_ATTR {
    const V turned = hn::MulSub(first, cosine, hn::Mul(second, sine));
    second = hn::MulAdd(second, cosine, hn::Mul(first, sine));
    first = turned;
  };
  int64_t i = 0;
  for (; i + Step() <= half; i += Step()) {
    V first = hn::LoadU(lanes, x + i), second = hn::LoadU(lanes, x + half + i);
    rotate(first, second, hn::LoadU(lanes, cosines + i), hn::LoadU(lanes, sines + i));
    hn::StoreU(first, lanes, x + i);
    hn::StoreU(second, lanes, x + half + i);
  }
  if (const int64_t rest = half - i; rest > 0) {
    V first = LoadTail(x + i, rest, 0), second = LoadTail(x + half + i, rest, 0);
    rotate(first, second, LoadTail(cosines + i, rest, 0), LoadTail(sines + i, rest, 0));
    StoreTail(first, x + i, rest);
    StoreTail(second, x + half + i, rest);
  }
}

HWY_ATTR void Softmax(float* scores, int64_t count) {
  const Lanes lanes;
  const float infinity = std::numeric_limits<float>::infinity();
  V largest = hn::Set(lanes, -infinity);
  int64_t i = 0;
  for (; i + Step() <= count; i += Step()) largest = hn::Max(largest, hn::LoadU(lanes, scores + i));
  if (i < count) largest = hn::Max(largest, LoadTail(scores + i, count - i, -infinity));
  const V shift = hn::MaxOfLanes(lanes, largest);
  V sum = hn::Zero(lanes);
  auto exponential = [&](V score) HWY_ATTR { return hn::Exp(lanes, hn::Sub(score, shift)); };
  for (i = 0; i + Step() <= count; i += Step()) {
    const V e = exponential(hn::LoadU(lanes, scores + i));
    hn::StoreU(e, lanes, scores + i);
    sum = hn::Add(sum, e);
  }
  if (i < count) {
    const V e = exponential(LoadTail(scores + i, count - i, -infinity));
    StoreTail(e, scores + i, count - i);
    sum = hn::Add(sum, e);
  }
  Divide(scores, hn::GetLane(hn::SumOfLanes(lanes, sum)), count, scores);
}

HWY_ATTR void Score(const float* query, const HeadSequence& keys, int64_t visible, int64_t head_size,
                    float scale, float* scores) {
  const int64_t shared = std::min(visible, keys.shared.count);
  for (int64_t t = 0; t < shared; ++t) {
    scores[t] = Dot(query, keys.shared.data + t * keys.stride, head_size) * scale;
  }
  for (int64_t t = shared; t < visible; ++t) {
    scores[t] = Dot(query, keys.own.data + (t - shared) * keys.stride, head_size) * scale;
  }
}

// kVectors whole vectors of z from element `begin` on: as many sums that do not wait
// for each other.
template <int kVectors>
HWY_ATTR void MixVectors(const float* pattern, const HeadSequence& values, int64_t visible, int64_t begin,
                         float* z) {
  const Lanes lanes;
  V sums[kVectors];
  for (V& sum : sums) sum = hn::Zero(lanes);
  auto add = [&](V weight, const float* row) HWY_ATTR {
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = hn::MulAdd(weight, hn::LoadU(lanes, row + begin + v * Step()), sums[v]);
    }
  };
  const int64_t shared = std::min(visible, values.shared.count);
  for (int64_t t = 0; t < shared; ++t) {
    add(hn::Set(lanes, pattern[t]), values.shared.data + t * values.stride);
  }
  for (int64_t t = shared; t < visible; ++t) {
    add(hn::Set(lanes, pattern[t]), values.own.data + (t - shared) * values.stride);
  }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[v], lanes, z + begin + v * Step());
}

// The elements that fill no vector.
HWY_ATTR void MixTail(const float* pattern, const HeadSequence& values, int64_t visible, int64_t begin,
                      int64_t width, float* z) {
  V sum = hn::Zero(Lanes());
  const int64_t shared = std::min(visible, values.shared.count);
  for (int64_t t = 0; t < visible; ++t) {
    const float* row =
        t < shared ? values.shared.data + t * values.stride : values.own.data + (t - shared) * values.stride;
    sum = hn::MulAdd(hn::Set(Lanes(), pattern[t]), LoadTail(row + begin, width, 0), sum);
  }
  StoreTail(sum, z + begin, width);
}

HWY_ATTR void Mix(const float* pattern, const HeadSequence& values, int64_t visible, int64_t head_size,
                  float* z) {
  constexpr int kAtOnce = 8;
  int64_t begin = 0;
  for (; begin + kAtOnce * Step() <= head_size; begin += kAtOnce * Step()) {
    MixVectors<kAtOnce>(pattern, values, visible, begin, z);
  }
  for (; begin + Step() <= head_size; begin += Step()) MixVectors<1>(pattern, values, visible, begin, z);
  if (begin < head_size) MixTail(pattern, values, visible, begin, head_size - begin, z);
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(Dot);
HWY_EXPORT(Divide);
HWY_EXPORT(MultiplyElements);
HWY_EXPORT(AddElements);
HWY_EXPORT(SiluMultiplyElements);
HWY_EXPORT(RotateHead);
HWY_EXPORT(Softmax);
HWY_EXPORT(Score);
HWY_EXPORT(Mix);

namespace {

// What is worth a thread: values that are added or multiplied, and those whose
// exponential is taken.
constexpr int64_t kValuesWorthAThread = 1 << 15;
constexpr int64_t kExponentialsWorthAThread = 1 << 11;

// Rows, each computed as it would be alone.
template <typename Function>
void ForRows(int64_t n, int64_t width, Function&& function) {
  ParallelFor(0, n, std::max<int64_t>(1, kValuesWorthAThread / std::max<int64_t>(1, width)),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) function(i);
              });
}

}  // namespace

void RootMeanSquare(const float* x, int64_t n, int64_t width, float epsilon, float* scale) {
  const auto dot = HWY_DYNAMIC_DISPATCH(Dot);
  ForRows(n, width, [&](int64_t i) {
    const float* row = x + i * width;
    scale[i] = std::sqrt(dot(row, row, width) / static_cast<float>(width) + epsilon);
  });
}

void DivideRows(const float* x, const float* scale, int64_t n, int64_t width, float* y) {
  const auto divide = HWY_DYNAMIC_DISPATCH(Divide);
  ForRows(n, width, [&](int64_t i) { divide(x + i * width, scale[i], width, y + i * width); });
}

void MultiplyColumns(const float* x, const float* gain, int64_t n, int64_t width, float* y) {
  const auto multiply = HWY_DYNAMIC_DISPATCH(MultiplyElements);
  ForRows(n, width, [&](int64_t i) { multiply(x + i * width, gain, width, y + i * width); });
}

void AddInPlace(float* x, const float* y, int64_t count) {
  const auto add = HWY_DYNAMIC_DISPATCH(AddElements);
  ParallelFor(0, count, kValuesWorthAThread,
              [&](int64_t begin, int64_t end) { add(x + begin, y + begin, end - begin, x + begin); });
}

void SiluMultiply(const float* gate, const float* up, int64_t count, float* y) {
  const auto multiply = HWY_DYNAMIC_DISPATCH(SiluMultiplyElements);
  ParallelFor(0, count, kExponentialsWorthAThread, [&](int64_t begin, int64_t end) {
    multiply(gate + begin, up + begin, end - begin, y + begin);
  });
}

void RotateRow(float* x, int64_t heads, int64_t head_size, const float* cosines, const float* sines) {
  const auto rotate = HWY_DYNAMIC_DISPATCH(RotateHead);
  for (int64_t h = 0; h < heads; ++h) rotate(x + h * head_size, head_size / 2, cosines, sines);
}

void ScoreRow(const float* query, const HeadSequence& keys, int64_t visible, int64_t head_size, float scale,
              float* scores) {
  HWY_DYNAMIC_DISPATCH(Score)(query, keys, visible, head_size, scale, scores);
}

void SoftmaxRow(float* scores, int64_t count) { HWY_DYNAMIC_DISPATCH(Softmax)(scores, count); }

void MixRow(const float* pattern, const HeadSequence& values, int64_t visible, int64_t head_size, float* z) {
  HWY_DYNAMIC_DISPATCH(Mix)(pattern, values, visible, head_size, z);
}

}  // namespace mechinterp::engine::kernels
#endif
