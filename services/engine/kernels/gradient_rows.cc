#include "services/engine/kernels/gradient_rows.h"

#include <algorithm>

#include "services/engine/kernels/row_threads.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/gradient_rows.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
#include "services/engine/kernels/rows-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

HWY_ATTR float RowDot(const float* a, const float* b, int64_t count) { return Dot(a, b, count); }

// y = y * factor + x * x_factor.
HWY_ATTR void Combine(const float* x, float x_factor, float factor, int64_t count, float* y) {
  const V x_factors = hn::Set(Lanes(), x_factor), factors = hn::Set(Lanes(), factor);
  ForEach(x, y, count, y, [&](V v, V w) HWY_ATTR { return hn::MulAdd(v, x_factors, hn::Mul(w, factors)); });
}

HWY_ATTR V Sigmoid(V g) {
  const Lanes lanes;
  return hn::Div(hn::Set(lanes, 1.0f), hn::Add(hn::Set(lanes, 1.0f), hn::Exp(lanes, hn::Neg(g))));
}

// Calls function(gate, up, gradient, to_gate, to_up) for each vector of elements.
template <typename Function>
HWY_ATTR void ForGates(const float* gate, const float* up, const float* gradient, int64_t count,
                       float* gate_gradient, float* up_gradient, const Function& function) {
  const Lanes lanes;
  V to_gate, to_up;
  int64_t i = 0;
  for (; i + Step() <= count; i += Step()) {
    function(hn::LoadU(lanes, gate + i), hn::LoadU(lanes, up + i), hn::LoadU(lanes, gradient + i), to_gate,
             to_up);
    hn::StoreU(to_gate, lanes, gate_gradient + i);
    hn::StoreU(to_up, lanes, up_gradient + i);
  }
  if (const int64_t rest = count - i; rest > 0) {
    function(LoadTail(gate + i, rest, 0), LoadTail(up + i, rest, 0), LoadTail(gradient + i, rest, 0), to_gate,
             to_up);
    StoreTail(to_gate, gate_gradient + i, rest);
    StoreTail(to_up, up_gradient + i, rest);
  }
}

HWY_ATTR void GateGradients(const float* gate, const float* up, const float* gradient, int64_t count,
                            float* gate_gradient, float* up_gradient) {
  const V one = hn::Set(Lanes(), 1.0f);
  ForGates(gate, up, gradient, count, gate_gradient, up_gradient,
           [&](V g, V u, V d, V& to_gate, V& to_up) HWY_ATTR {
             const V sigmoid = Sigmoid(g);
             // SiLU' = sigmoid (1 + g (1 - sigmoid)).
             const V slope = hn::Mul(sigmoid, hn::MulAdd(g, hn::Sub(one, sigmoid), one));
             to_gate = hn::Mul(hn::Mul(d, u), slope);
             to_up = hn::Mul(d, hn::Mul(g, sigmoid));
           });
}

HWY_ATTR void GateRelevances(const float* gate, const float* up, const float* gradient, int64_t count,
                             float* gate_gradient, float* up_gradient) {
  const V half = hn::Set(Lanes(), 0.5f);
  ForGates(gate, up, gradient, count, gate_gradient, up_gradient,
           [&](V g, V u, V d, V& to_gate, V& to_up) HWY_ATTR {
             const V share = hn::Mul(hn::Mul(half, d), Sigmoid(g));
             to_gate = hn::Mul(share, u);
             to_up = hn::Mul(share, g);
           });
}

HWY_ATTR void SoftmaxGradient(const float* pattern, int64_t count, float scale, float* gradient) {
  const Lanes lanes;
  const V mean = hn::Set(lanes, Dot(pattern, gradient, count)), factor = hn::Set(lanes, scale);
  ForEach(pattern, gradient, count, gradient,
          [&](V p, V g) HWY_ATTR { return hn::Mul(hn::Mul(p, hn::Sub(g, mean)), factor); });
}

HWY_ATTR void Accumulate(const float* coefficients, int64_t stride, int64_t heads, const float* vectors,
                         int64_t count, int64_t head_size, float* rows, int64_t row_stride) {
  const Lanes lanes;
  for (int64_t t = 0; t < count; ++t, rows += row_stride) {
    for (int64_t h = 0; h < heads; ++h) {
      const V coefficient = hn::Set(lanes, coefficients[h * stride + t]);
      ForEach(vectors + h * head_size, rows, head_size, rows,
              [&](V x, V y) HWY_ATTR { return hn::MulAdd(coefficient, x, y); });
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(RowDot);
HWY_EXPORT(Combine);
HWY_EXPORT(GateGradients);
HWY_EXPORT(GateRelevances);
HWY_EXPORT(SoftmaxGradient);
HWY_EXPORT(Accumulate);

void ScaleGradient(const float* x, const float* scale, const float* gradient, int64_t n, int64_t width,
                   float* scale_gradient) {
  const auto dot = HWY_DYNAMIC_DISPATCH(RowDot);
  ForRows(n, width, [&](int64_t i) {
    scale_gradient[i] = -dot(gradient + i * width, x + i * width, width) / (scale[i] * scale[i]);
  });
}

void NormGradient(const float* x, const float* root, const float* scale, const float* root_gradient,
                  int64_t n, int64_t width, float* gradient) {
  const auto combine = HWY_DYNAMIC_DISPATCH(Combine);
  ForRows(n, width, [&](int64_t i) {
    combine(x + i * width, root_gradient[i] / (static_cast<float>(width) * root[i]), 1 / scale[i], width,
            gradient + i * width);
  });
}

void SiluMultiplyGradient(const float* gate, const float* up, const float* gradient, int64_t count,
                          float* gate_gradient, float* up_gradient) {
  const auto gradients = HWY_DYNAMIC_DISPATCH(GateGradients);
  ParallelFor(0, count, kExponentialsWorthAThread, [&](int64_t begin, int64_t end) {
    gradients(gate + begin, up + begin, gradient + begin, end - begin, gate_gradient + begin,
              up_gradient + begin);
  });
}

void SiluMultiplyRelevance(const float* gate, const float* up, const float* gradient, int64_t count,
                           float* gate_gradient, float* up_gradient) {
  const auto relevances = HWY_DYNAMIC_DISPATCH(GateRelevances);
  ParallelFor(0, count, kExponentialsWorthAThread, [&](int64_t begin, int64_t end) {
    relevances(gate + begin, up + begin, gradient + begin, end - begin, gate_gradient + begin,
               up_gradient + begin);
  });
}

void SoftmaxGradientRow(const float* pattern, int64_t count, float scale, float* gradient) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradient)(pattern, count, scale, gradient);
}

void AccumulateRows(const float* coefficients, int64_t stride, int64_t heads, const float* vectors,
                    int64_t count, int64_t head_size, float* rows, int64_t row_stride) {
  HWY_DYNAMIC_DISPATCH(Accumulate)
  (coefficients, stride, heads, vectors, count, head_size, rows, row_stride);
}

}  // namespace mechinterp::engine::kernels
#endif
