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

HWY_ATTR void SiluMultiplyPart(const float* gate, const float* up, int64_t count, float* y) {
  const Lanes lanes;
  auto silu_multiply = [&](V g, V u) HWY_ATTR {
    const V denominator = hn::Add(hn::Set(lanes, 1.0f), hn::Exp(lanes, hn::Neg(g)));
    return hn::Mul(hn::Div(g, denominator), u);
  };
  int64_t i = 0;
  for (; i + Step() <= count; i += Step()) {
    hn::StoreU(silu_multiply(hn::LoadU(lanes, gate + i), hn::LoadU(lanes, up + i)), lanes, y + i);
  }
  if (i < count) {
    StoreTail(silu_multiply(LoadTail(gate + i, count - i, 0), LoadTail(up + i, count - i, 0)), y + i,
              count - i);
  }
}

HWY_ATTR void Softmax(float* scores, int64_t count) {
  const Lanes lanes;
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = *std::max_element(scores, scores + count);
  const V shift = hn::Set(lanes, largest);
  V sum = hn::Zero(lanes);
  auto exponential = [&](V score) HWY_ATTR { return hn::Exp(lanes, hn::Sub(score, shift)); };
  int64_t i = 0;
  for (; i + Step() <= count; i += Step()) {
    const V e = exponential(hn::LoadU(lanes, scores + i));
    hn::StoreU(e, lanes, scores + i);
    sum = hn::Add(sum, e);
  }
  if (i < count) {
    const V e = exponential(LoadTail(scores + i, count - i, -infinity));
    StoreTail(e, scores + i, count - i);
    sum = hn::Add(sum, e);
  }
  const float total = hn::GetLane(hn::SumOfLanes(lanes, sum));
  for (i = 0; i < count; ++i) scores[i] /= total;
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

HWY_ATTR void MixLanes(const float* pattern, const HeadSequence& values, int64_t visible, int64_t begin,
                       int64_t width, float* z) {
  const Lanes lanes;
  const bool whole = width == Step();
  auto load = [&](const float* row) HWY_ATTR {
    return whole ? hn::LoadU(lanes, row + begin) : LoadTail(row + begin, width, 0);
  };
  V sum = hn::Zero(lanes);
  const int64_t shared = std::min(visible, values.shared.count);
  for (int64_t t = 0; t < shared; ++t) {
    sum = hn::MulAdd(hn::Set(lanes, pattern[t]), load(values.shared.data + t * values.stride), sum);
  }
  for (int64_t t = shared; t < visible; ++t) {
    sum = hn::MulAdd(hn::Set(lanes, pattern[t]), load(values.own.data + (t - shared) * values.stride), sum);
  }
  StoreTail(sum, z + begin, width);
}

HWY_ATTR void Mix(const float* pattern, const HeadSequence& values, int64_t visible, int64_t head_size,
                  float* z) {
  for (int64_t begin = 0; begin < head_size; begin += Step()) {
    MixLanes(pattern, values, visible, begin, std::min(Step(), head_size - begin), z);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(Dot);
HWY_EXPORT(SiluMultiplyPart);
HWY_EXPORT(Softmax);
HWY_EXPORT(Score);
HWY_EXPORT(Mix);

namespace {

// Rows, or stretches of values, enough of them for a thread. Each is computed as it
// would be alone.
constexpr int64_t kValuesWorthAThread = 1 << 15;

template <typename Function>
void ForRows(int64_t n, int64_t width, Function&& function) {
  ParallelFor(0, n, std::max<int64_t>(1, kValuesWorthAThread / std::max<int64_t>(1, width)), function);
}

}  // namespace

void RootMeanSquare(const float* x, int64_t n, int64_t width, float epsilon, float* scale) {
  const auto dot = HWY_DYNAMIC_DISPATCH(Dot);
  ForRows(n, width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float* row = x + i * width;
      scale[i] = std::sqrt(dot(row, row, width) / static_cast<float>(width) + epsilon);
    }
  });
}

// Element by element: the compiler's vectors give the same bits as scalars.
void DivideRows(const float* x, const float* scale, int64_t n, int64_t width, float* y) {
  ForRows(n, width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < width; ++j) y[i * width + j] = x[i * width + j] / scale[i];
    }
  });
}

void MultiplyColumns(const float* x, const float* gain, int64_t n, int64_t width, float* y) {
  ForRows(n, width, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < width; ++j) y[i * width + j] = x[i * width + j] * gain[j];
    }
  });
}

void AddInPlace(float* x, const float* y, int64_t count) {
  ForRows(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) x[i] += y[i];
  });
}

void SiluMultiply(const float* gate, const float* up, int64_t count, float* y) {
  const auto part = HWY_DYNAMIC_DISPATCH(SiluMultiplyPart);
  ForRows(count, 1,
          [&](int64_t begin, int64_t end) { part(gate + begin, up + begin, end - begin, y + begin); });
}

void RotateRow(float* x, int64_t heads, int64_t head_size, const float* cosines, const float* sines) {
  const int64_t half = head_size / 2;
  for (int64_t h = 0; h < heads; ++h, x += head_size) {
    for (int64_t i = 0; i < half; ++i) {
      const float first = x[i], second = x[i + half];
      x[i] = first * cosines[i] - second * sines[i];
      x[i + half] = second * cosines[i] + first * sines[i];
    }
  }
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
