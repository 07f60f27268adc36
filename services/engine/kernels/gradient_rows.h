#ifndef SERVICES_ENGINE_KERNELS_GRADIENT_ROWS_H_
#define SERVICES_ENGINE_KERNELS_GRADIENT_ROWS_H_

#include <cstdint>

namespace mechinterp::engine::kernels {

// What rows.h computes, taken back: from the gradient with respect to a result to that with
// respect to its operands. Batch invariant and thread-safe as rows.h is.

// Of y = x / scale, by row, with respect to the scale: scale_gradient[i] = -(gradient[i] . x[i]) /
// scale[i]^2.
void ScaleGradient(const float* x, const float* scale, const float* gradient, int64_t n, int64_t width,
                   float* scale_gradient);

// Of y = x / scale with respect to x, in place of the gradient with respect to y. The scale came,
// perhaps changed, from root[i] = RootMeanSquare(x)[i], and the gradient with respect to that is
// given too: gradient[i] = gradient[i] / scale[i] + root_gradient[i] * x[i] / (width * root[i]).
void NormGradient(const float* x, const float* root, const float* scale, const float* root_gradient,
                  int64_t n, int64_t width, float* gradient);

// Of y = SiLU(gate) * up.
void SiluMultiplyGradient(const float* gate, const float* up, const float* gradient, int64_t count,
                          float* gate_gradient, float* up_gradient);
// The same by the rules of RelP (Jafari et al. 2025): SiLU is its input times a constant, the
// sigmoid, and each factor of the product bears half of what it adds to.
void SiluMultiplyRelevance(const float* gate, const float* up, const float* gradient, int64_t count,
                           float* gate_gradient, float* up_gradient);

// Of softmax with respect to the scores, in place of that with respect to the pattern, times
// `scale`: gradient = pattern * (gradient - pattern . gradient) * scale.
void SoftmaxGradientRow(const float* pattern, int64_t count, float scale, float* gradient);

// Row t of `rows` ([count, head_size], `row_stride` floats apart) += the sum over heads of
// coefficients[h * stride + t] * vectors[h], heads in order.
void AccumulateRows(const float* coefficients, int64_t stride, int64_t heads, const float* vectors,
                    int64_t count, int64_t head_size, float* rows, int64_t row_stride);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_GRADIENT_ROWS_H_
