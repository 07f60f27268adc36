#include "services/engine/kernels/logit_reductions.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/logit_reductions.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace {  // other files' helpers have the same names
namespace hn = hwy::HWY_NAMESPACE;

using Singles = hn::ScalableTag<float>;
using Doubles = hn::ScalableTag<double>;
using Narrow = hn::Rebind<float, Doubles>;  // as many floats as Doubles has lanes
using D = hn::Vec<Doubles>;
constexpr int kMaxDoubles = HWY_MAX_BYTES / sizeof(double);

HWY_ATTR int64_t SingleStep() { return static_cast<int64_t>(hn::Lanes(Singles())); }
HWY_ATTR int64_t Step() { return static_cast<int64_t>(hn::Lanes(Doubles())); }

HWY_ATTR float MaxValueOf(const float* x, int64_t count) {
  const Singles lanes;
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  // Comparisons with NaN are false: it never replaces a maximum.
  auto larger = [](auto best, auto v) HWY_ATTR { return hn::IfThenElse(hn::Gt(v, best), v, best); };
  auto a = hn::Set(lanes, kLowest), b = a;  // two chains hide each other's latency
  int64_t i = 0;
  for (; i + 2 * SingleStep() <= count; i += 2 * SingleStep()) {
    a = larger(a, hn::LoadU(lanes, x + i));
    b = larger(b, hn::LoadU(lanes, x + i + SingleStep()));
  }
  float best = hn::GetLane(hn::MaxOfLanes(lanes, larger(a, b)));
  for (; i < count; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

HWY_ATTR int64_t ArgMaxOf(const float* x, int64_t count) {
  const Singles lanes;
  const float best = MaxValueOf(x, count);
  const auto wanted = hn::Set(lanes, best);
  int64_t i = 0;
  for (; i + SingleStep() <= count; i += SingleStep()) {
    const intptr_t found = hn::FindFirstTrue(lanes, hn::Eq(hn::LoadU(lanes, x + i), wanted));
    if (found >= 0) return i + found;
  }
  for (; i < count; ++i) {
    if (x[i] == best) return i;
  }
  return 0;
}

HWY_ATTR D LoadDoubles(const float* x) { return hn::PromoteTo(Doubles(), hn::LoadU(Narrow(), x)); }

// Sum of term(i), the terms of elements i to i + Step(), over the whole stretches
// of Step() elements. Callers add what is left from padded copies, so that every
// element takes the same way.
template <typename Term>
HWY_ATTR double Sum(int64_t count, const Term& term) {
  D a = hn::Zero(Doubles()), b = a;
  int64_t i = 0;
  for (; i + 2 * Step() <= count; i += 2 * Step()) {
    a = hn::Add(a, term(i));
    b = hn::Add(b, term(i + Step()));
  }
  if (i + Step() <= count) {
    a = hn::Add(a, term(i));
    i += Step();
  }
  return hn::GetLane(hn::SumOfLanes(Doubles(), hn::Add(a, b)));
}

template <typename T>
HWY_ATTR void PadTail(const T* x, int64_t count, T padding, T* padded) {
  std::fill(padded, padded + kMaxDoubles, padding);
  std::copy(x, x + count, padded);
}

// Where the last whole stretch ends.
HWY_ATTR int64_t WholeCount(int64_t count) { return count / Step() * Step(); }

constexpr float kNothing = -std::numeric_limits<float>::infinity();  // exp(kNothing) is 0

HWY_ATTR double SumExpOf(const float* x, int64_t count, double shift) {
  const D shifts = hn::Set(Doubles(), shift);
  auto terms = [&](const float* values) HWY_ATTR {
    const D exponent = hn::Sub(LoadDoubles(values), shifts);
    return hn::IfThenElse(hn::IsNaN(exponent), exponent, hn::Exp(Doubles(), exponent));
  };
  double sum = Sum(count, [&](int64_t i) HWY_ATTR { return terms(x + i); });
  if (const int64_t whole = WholeCount(count); whole < count) {
    float padded[kMaxDoubles];
    PadTail(x + whole, count - whole, kNothing, padded);
    sum += hn::GetLane(hn::SumOfLanes(Doubles(), terms(padded)));
  }
  return sum;
}

HWY_ATTR double ExpWeightsOf(const float* x, int64_t count, double shift, double temperature,
                             double* weights) {
  const Doubles lanes;
  const D shifts = hn::Set(lanes, shift), divisor = hn::Set(lanes, temperature);
  auto terms = [&](const float* values) HWY_ATTR {
    const D exponent = hn::Div(hn::Sub(LoadDoubles(values), shifts), divisor);
    return hn::IfThenZeroElse(hn::IsNaN(exponent), hn::Exp(lanes, exponent));
  };
  double sum = Sum(count, [&](int64_t i) HWY_ATTR {
    const D w = terms(x + i);
    hn::StoreU(w, lanes, weights + i);
    return w;
  });
  if (const int64_t whole = WholeCount(count); whole < count) {
    float padded[kMaxDoubles];
    double stored[kMaxDoubles];
    PadTail(x + whole, count - whole, kNothing, padded);
    const D w = terms(padded);
    hn::StoreU(w, lanes, stored);
    std::copy(stored, stored + (count - whole), weights + whole);
    sum += hn::GetLane(hn::SumOfLanes(lanes, w));
  }
  return sum;
}

HWY_ATTR double WeightedDifferenceOf(const double* weights, const float* a, const float* b, int64_t count) {
  const Doubles lanes;
  auto terms = [&](const double* w, const float* x, const float* y) HWY_ATTR {
    const D weight = hn::LoadU(lanes, w);
    const D product = hn::Mul(weight, hn::Sub(LoadDoubles(x), LoadDoubles(y)));
    return hn::IfThenZeroElse(hn::Eq(weight, hn::Zero(lanes)), product);
  };
  double sum = Sum(count, [&](int64_t i) HWY_ATTR { return terms(weights + i, a + i, b + i); });
  if (const int64_t whole = WholeCount(count); whole < count) {
    double w[kMaxDoubles];
    float x[kMaxDoubles], y[kMaxDoubles];
    PadTail(weights + whole, count - whole, 0.0, w);
    PadTail(a + whole, count - whole, 0.0f, x);
    PadTail(b + whole, count - whole, 0.0f, y);
    sum += hn::GetLane(hn::SumOfLanes(lanes, terms(w, x, y)));
  }
  return sum;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(MaxValueOf);
HWY_EXPORT(ArgMaxOf);
HWY_EXPORT(SumExpOf);
HWY_EXPORT(ExpWeightsOf);
HWY_EXPORT(WeightedDifferenceOf);

float MaxValue(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(MaxValueOf)(x, count); }

int64_t ArgMax(const float* x, int64_t count) { return HWY_DYNAMIC_DISPATCH(ArgMaxOf)(x, count); }

double SumExp(const float* x, int64_t count, double shift) {
  return HWY_DYNAMIC_DISPATCH(SumExpOf)(x, count, shift);
}

double ExpWeights(const float* x, int64_t count, double shift, double temperature, double* weights) {
  return HWY_DYNAMIC_DISPATCH(ExpWeightsOf)(x, count, shift, temperature, weights);
}

double WeightedDifference(const double* weights, const float* a, const float* b, int64_t count) {
  return HWY_DYNAMIC_DISPATCH(WeightedDifferenceOf)(weights, a, b, count);
}

}  // namespace mechinterp::engine::kernels
#endif
