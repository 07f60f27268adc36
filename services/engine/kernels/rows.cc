#include "services/engine/kernels/rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "services/engine/kernels/row_threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/rows.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "services/engine/kernels/rows-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

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

// Calls function(t, row) for the first `visible` rows of a sequence, of which it reads elements
// [begin, end). Rows lie far apart, so the memory is asked for them a few rows ahead.
template <typename Function>
HWY_ATTR void ForVisibleRows(const HeadSequence& sequence, int64_t visible, int64_t begin, int64_t end,
                             const Function& function) {
  constexpr int64_t kRowsAhead = 6, kLine = 64 / sizeof(float);
  auto for_rows = [&](int64_t first, int64_t last, const float* rows) HWY_ATTR {
    for (int64_t t = first; t < last; ++t) {
      const float* row = rows + (t - first) * sequence.stride;
      if (t + kRowsAhead < last) {
        const float* ahead = row + kRowsAhead * sequence.stride;
        for (int64_t i = begin; i < end; i += kLine) hwy::Prefetch(ahead + i);
      }
      function(t, row);
    }
  };
  const int64_t shared = std::min(visible, sequence.shared.count);
  for_rows(0, shared, sequence.shared.data);
  for_rows(shared, visible, sequence.own.data);
}

// Heads whose sums are made together, so that they read a key or a value once.
constexpr int kHeadsAtOnce = 4;

// As Dot, of each of kHeads queries.
template <int kHeads>
HWY_ATTR void ScoreHeads(const float* queries, const HeadSequence& keys, int64_t visible, int64_t head_size,
                         float scale, float* scores, int64_t stride) {
  const Lanes lanes;
  ForVisibleRows(keys, visible, 0, head_size, [&](int64_t t, const float* key) HWY_ATTR {
    V sums[kHeads];
    for (V& sum : sums) sum = hn::Zero(lanes);
    int64_t i = 0;
    for (; i + Step() <= head_size; i += Step()) {
      const V k = hn::LoadU(lanes, key + i);
      for (int h = 0; h < kHeads; ++h) {
        sums[h] = hn::MulAdd(hn::LoadU(lanes, queries + h * head_size + i), k, sums[h]);
      }
    }
    if (const int64_t rest = head_size - i; rest > 0) {
      const V k = LoadTail(key + i, rest, 0);
      for (int h = 0; h < kHeads; ++h) {
        sums[h] = hn::MulAdd(LoadTail(queries + h * head_size + i, rest, 0), k, sums[h]);
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      scores[h * stride + t] = hn::GetLane(hn::SumOfLanes(lanes, sums[h])) * scale;
    }
  });
}

HWY_ATTR void Score(const float* queries, int64_t heads, const HeadSequence& keys, int64_t visible,
                    int64_t head_size, float scale, float* scores, int64_t stride) {
  int64_t h = 0;
  for (; h + kHeadsAtOnce <= heads; h += kHeadsAtOnce) {
    ScoreHeads<kHeadsAtOnce>(queries + h * head_size, keys, visible, head_size, scale, scores + h * stride,
                             stride);
  }
  for (; h < heads; ++h) {
    ScoreHeads<1>(queries + h * head_size, keys, visible, head_size, scale, scores + h * stride, stride);
  }
}

// kVectors whole vectors of each of kHeads heads' z, from element `begin` on: as many
// sums that do not wait for each other.
template <int kHeads, int kVectors>
HWY_ATTR void MixVectors(const float* pattern, int64_t stride, const HeadSequence& values, int64_t visible,
                         int64_t head_size, int64_t begin, float* z) {
  const Lanes lanes;
  V sums[kHeads][kVectors];
  for (auto& head : sums) {
    for (V& sum : head) sum = hn::Zero(lanes);
  }
  ForVisibleRows(values, visible, begin, begin + kVectors * Step(),
                 [&](int64_t t, const float* row) HWY_ATTR {
                   V value[kVectors];
                   for (int v = 0; v < kVectors; ++v) value[v] = hn::LoadU(lanes, row + begin + v * Step());
                   for (int h = 0; h < kHeads; ++h) {
                     const V weight = hn::Set(lanes, pattern[h * stride + t]);
                     for (int v = 0; v < kVectors; ++v) sums[h][v] = hn::MulAdd(weight, value[v], sums[h][v]);
                   }
                 });
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[h][v], lanes, z + h * head_size + begin + v * Step());
    }
  }
}

template <int kHeads, int kVectors>
HWY_ATTR void MixHeads(const float* pattern, int64_t stride, const HeadSequence& values, int64_t visible,
                       int64_t head_size, float* z) {
  int64_t begin = 0;
  for (; begin + kVectors * Step() <= head_size; begin += kVectors * Step()) {
    MixVectors<kHeads, kVectors>(pattern, stride, values, visible, head_size, begin, z);
  }
  for (; begin + Step() <= head_size; begin += Step()) {
    MixVectors<kHeads, 1>(pattern, stride, values, visible, head_size, begin, z);
  }
  if (const int64_t rest = head_size - begin; rest > 0) {  // elements that fill no vector
    for (int h = 0; h < kHeads; ++h) {
      V sum = hn::Zero(Lanes());
      ForVisibleRows(values, visible, begin, head_size, [&](int64_t t, const float* row) HWY_ATTR {
        sum = hn::MulAdd(hn::Set(Lanes(), pattern[h * stride + t]), LoadTail(row + begin, rest, 0), sum);
      });
      StoreTail(sum, z + h * head_size + begin, rest);
    }
  }
}

HWY_ATTR void Mix(const float* pattern, int64_t stride, int64_t heads, const HeadSequence& values,
                  int64_t visible, int64_t head_size, float* z) {
  int64_t h = 0;
  for (; h + kHeadsAtOnce <= heads; h += kHeadsAtOnce) {
    MixHeads<kHeadsAtOnce, 2>(pattern + h * stride, stride, values, visible, head_size, z + h * head_size);
  }
  for (; h < heads; ++h) {
    MixHeads<1, 8>(pattern + h * stride, stride, values, visible, head_size, z + h * head_size);
  }
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

void ScoreRows(const float* queries, int64_t heads, const HeadSequence& keys, int64_t visible,
               int64_t head_size, float scale, float* scores, int64_t stride) {
  HWY_DYNAMIC_DISPATCH(Score)(queries, heads, keys, visible, head_size, scale, scores, stride);
}

void SoftmaxRow(float* scores, int64_t count) { HWY_DYNAMIC_DISPATCH(Softmax)(scores, count); }

void MixRows(const float* pattern, int64_t stride, int64_t heads, const HeadSequence& values, int64_t visible,
             int64_t head_size, float* z) {
  HWY_DYNAMIC_DISPATCH(Mix)(pattern, stride, heads, values, visible, head_size, z);
}

}  // namespace mechinterp::engine::kernels
#endif
