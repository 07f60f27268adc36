#ifndef SERVICES_ENGINE_FORWARD_ATEN_ARITHMETIC_H_
#define SERVICES_ENGINE_FORWARD_ATEN_ARITHMETIC_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/aten_attention.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// By libtorch, on any device it has; NF4 and int8 products on Apple's GPU by our own
// kernels (metal_linear.h). Keeps to what MPS has and does right: no float64, no int64
// arithmetic, contiguous fp32 copies to and from the host, contiguous operands of
// products, no scaled_dot_product_attention; tests/services/engine/forward/op_audit holds
// every operation against MPS's tables.
//
// For one pass.
class AtenArithmetic final : public Arithmetic {
 public:
  explicit AtenArithmetic(const Model& model);

  Rows Allocate(Slot slot, int64_t count, int64_t width) override;
  void WriteRows(const Rows& rows, absl::FunctionRef<void(float*)> write) override;
  void WithHostRows(const Rows& rows, absl::FunctionRef<bool(float*)> function) override;
  void Copy(const Rows& from, const Rows& to) override;
  void RootMeanSquare(const Rows& x, float epsilon, const Rows& scale) override;
  void DivideRows(const Rows& x, const Rows& scale, const Rows& y) override;
  void MultiplyColumns(const Rows& x, const at::Tensor& gain) override;
  void AddColumns(const Rows& x, const at::Tensor& bias) override;
  void Multiply(const Rows& x, absl::Span<const Product> products) override;
  void MultiplyInputs(const Rows& x, const LinearWeight& weight, int64_t first_input, Slot slot) override;
  void Add(const Rows& x, const Rows& y) override;
  void SiluMultiply(const Rows& gate, const Rows& up, const Rows& y) override;
  void SetAngles(absl::Span<const float> cosines, absl::Span<const float> sines, int64_t half) override;
  void Rotate(const Rows& x, int64_t heads) override;
  void Attend(const Batch& batch, int layer, const Rows& query, const Rows& key, const Rows& value,
              const Rows& z) override;
  void MultiplyTransposed(absl::Span<const TransposedProduct> products, const Rows& x_gradient) override;
  void ScaleGradient(const Rows& x, const Rows& scale, const Rows& gradient,
                     const Rows& scale_gradient) override;
  void NormGradient(const Rows& x, const Rows& root, const Rows& scale, const Rows& root_gradient,
                    const Rows& gradient) override;
  void SiluMultiplyGradient(BackwardRule rule, const Rows& gate, const Rows& up, const Rows& gradient,
                            const Rows& gate_gradient, const Rows& up_gradient) override;
  void RotateBack(const Rows& x, int64_t heads) override;
  void AttendBackward(const Batch& batch, int layer, int run, const AttentionRows& forward,
                      const Rows& z_gradient, const AttentionRows& gradients) override;
  void Free(Slot slot) override { Whole(slot) = at::Tensor(); }
  void Finish(const Rows& rows) override {
    WithHostRows(rows.Part(rows.count - 1, 1), [](float*) { return false; });
  }

 private:
  at::Tensor& Whole(Slot slot) { return slots_[static_cast<int>(slot)]; }
  at::Tensor Get(const Rows& rows);
  void Set(const Rows& rows, const at::Tensor& values);
  void RotateBy(const Rows& x, int64_t heads, bool back);
  at::Tensor FromHost(const float* values, at::IntArrayRef shape) const;

  const at::Device device_;
  AtenAttention attention_;
  const NumberFormat compute_;
  metal::KernelRunner* const runner_;
  std::array<at::Tensor, static_cast<int>(Slot::kCount)> slots_;
  at::Tensor cosines_;  // [N, 1, Dh / 2]
  at::Tensor sines_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ATEN_ARITHMETIC_H_
