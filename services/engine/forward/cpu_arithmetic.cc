#include "services/engine/forward/cpu_arithmetic.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "services/engine/forward/cpu_attention.h"
#include "services/engine/forward/cpu_attention_gradient.h"
#include "services/engine/kernels/gradient_rows.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/multiply_transposed.h"
#include "services/engine/kernels/rows.h"

namespace mechinterp::engine {

Rows CpuArithmetic::Allocate(Slot slot, int64_t count, int64_t width) {
  kernels::Buffer& buffer = slots_[static_cast<int>(slot)];
  const size_t needed = count * width * sizeof(float);
  if (buffer.size() < needed) {
    Count(-static_cast<int64_t>(buffer.size()));
    { const kernels::Buffer old = std::move(buffer); }  // not both at once
    buffer = kernels::Buffer(needed);
    Count(static_cast<int64_t>(needed));
  }
  return {slot, 0, count, width};
}

void CpuArithmetic::Count(int64_t bytes) {
  bytes_ += bytes;
  total_bytes_ += bytes;
}

void CpuArithmetic::Copy(const Rows& from, const Rows& to) {
  std::memcpy(Data(to), Data(from), from.size() * sizeof(float));
}

void CpuArithmetic::RootMeanSquare(const Rows& x, float epsilon, const Rows& scale) {
  kernels::RootMeanSquare(Data(x), x.count, x.width, epsilon, Data(scale));
}

void CpuArithmetic::DivideRows(const Rows& x, const Rows& scale, const Rows& y) {
  kernels::DivideRows(Data(x), Data(scale), x.count, x.width, Data(y));
}

void CpuArithmetic::MultiplyColumns(const Rows& x, const at::Tensor& gain) {
  kernels::MultiplyColumns(Data(x), gain.data_ptr<float>(), x.count, x.width, Data(x));
}

void CpuArithmetic::AddColumns(const Rows& x, const at::Tensor& bias) {
  const float* values = bias.data_ptr<float>();
  float* row = Data(x);
  for (int64_t i = 0; i < x.count; ++i, row += x.width) kernels::AddInPlace(row, values, x.width);
}

void CpuArithmetic::Multiply(const Rows& x, absl::Span<const Product> products) {
  constexpr size_t kMost = 4;
  std::array<kernels::Product, kMost> placed;
  while (!products.empty()) {
    const size_t count = std::min(products.size(), kMost);
    for (size_t i = 0; i < count; ++i) {
      const kernels::PackedMatrix& w = products[i].weight->matrix;
      const kernels::OutputRange outputs =
          kernels::OutputRange{products[i].first_output, products[i].end_output}.Of(w);
      placed[i] = {&w, Data(Allocate(products[i].slot, x.count, outputs.count())), outputs};
    }
    kernels::MultiplyEach(Data(x), x.count, std::span(placed.data(), count));
    products.remove_prefix(count);
  }
}

void CpuArithmetic::MultiplyInputs(const Rows& x, const LinearWeight& weight, int64_t first_input,
                                   Slot slot) {
  const Rows y = Allocate(slot, x.count, weight.out());
  kernels::MultiplyInputs(Data(x), x.count, weight.matrix, first_input, x.width, Data(y));
}

void CpuArithmetic::Add(const Rows& x, const Rows& y) { kernels::AddInPlace(Data(x), Data(y), y.size()); }

void CpuArithmetic::SiluMultiply(const Rows& gate, const Rows& up, const Rows& y) {
  kernels::SiluMultiply(Data(gate), Data(up), gate.size(), Data(y));
}

void CpuArithmetic::SetAngles(absl::Span<const float> cosines, absl::Span<const float> sines, int64_t half) {
  cosines_ = cosines;
  sines_ = sines;
  negated_sines_.clear();
  half_ = half;
}

void CpuArithmetic::RotateBy(const Rows& x, int64_t heads, const float* sines) {
  float* row = Data(x);
  for (int64_t i = 0; i < x.count; ++i, row += x.width) {
    kernels::RotateRow(row, heads, x.width / heads, cosines_.data() + i * half_, sines + i * half_);
  }
}

void CpuArithmetic::Rotate(const Rows& x, int64_t heads) { RotateBy(x, heads, sines_.data()); }

void CpuArithmetic::Attend(const Batch& batch, int layer, const Rows& query, const Rows& key,
                           const Rows& value, const Rows& z) {
  AttendOnCpu(*config_, batch, layer, Data(query), Data(key), Data(value), Data(z));
}

void CpuArithmetic::MultiplyTransposed(absl::Span<const TransposedProduct> products, const Rows& x_gradient) {
  std::vector<kernels::TransposedProduct> placed;
  for (const TransposedProduct& product : products) {
    placed.push_back({&product.weight->matrix,
                      Data(product.gradient),
                      product.gradient.width,
                      {product.first_output, product.first_output + product.gradient.width}});
  }
  kernels::MultiplyTransposed(x_gradient.count, placed, Data(x_gradient));
}

void CpuArithmetic::ScaleGradient(const Rows& x, const Rows& scale, const Rows& gradient,
                                  const Rows& scale_gradient) {
  kernels::ScaleGradient(Data(x), Data(scale), Data(gradient), x.count, x.width, Data(scale_gradient));
}

void CpuArithmetic::NormGradient(const Rows& x, const Rows& root, const Rows& scale,
                                 const Rows& root_gradient, const Rows& gradient) {
  kernels::NormGradient(Data(x), Data(root), Data(scale), Data(root_gradient), x.count, x.width,
                        Data(gradient));
}

void CpuArithmetic::SiluMultiplyGradient(BackwardRule rule, const Rows& gate, const Rows& up,
                                         const Rows& gradient, const Rows& gate_gradient,
                                         const Rows& up_gradient) {
  const auto function =
      rule == BackwardRule::kRelevance ? kernels::SiluMultiplyRelevance : kernels::SiluMultiplyGradient;
  function(Data(gate), Data(up), Data(gradient), gate.size(), Data(gate_gradient), Data(up_gradient));
}

void CpuArithmetic::RotateBack(const Rows& x, int64_t heads) {
  if (negated_sines_.empty()) {
    for (const float sine : sines_) negated_sines_.push_back(-sine);
  }
  RotateBy(x, heads, negated_sines_.data());
}

void CpuArithmetic::AttendBackward(const Batch& batch, int layer, int run, const AttentionRows& forward,
                                   const Rows& z_gradient, const AttentionRows& gradients) {
  AttendBackwardOnCpu(*config_, batch, layer, run,
                      {Data(forward.query), Data(forward.key), Data(forward.value)}, Data(z_gradient),
                      {Data(gradients.query), Data(gradients.key), Data(gradients.value)});
}

void CpuArithmetic::Free(Slot slot) {
  kernels::Buffer& buffer = slots_[static_cast<int>(slot)];
  Count(-static_cast<int64_t>(buffer.size()));
  const kernels::Buffer old = std::move(buffer);
}

}  // namespace mechinterp::engine
