#ifndef SERVICES_ENGINE_FORWARD_CPU_ARITHMETIC_H_
#define SERVICES_ENGINE_FORWARD_CPU_ARITHMETIC_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "services/engine/forward/arithmetic.h"
#include "services/engine/kernels/buffer.h"

namespace mechinterp::engine {

// By the kernels of kernels/rows.h and kernels/multiply.h, whose batch invariance it
// keeps. Slots keep their memory from layer to layer and pass to pass and grow when a
// pass has more rows, so passes neither allocate nor touch new pages.
class CpuArithmetic final : public Arithmetic {
 public:
  CpuArithmetic() = default;
  CpuArithmetic(const CpuArithmetic&) = delete;
  CpuArithmetic& operator=(const CpuArithmetic&) = delete;
  ~CpuArithmetic() override { total_bytes_ -= bytes_; }

  // What all of them hold in this process; from any thread.
  static int64_t total_bytes() { return total_bytes_; }

  // Of the pass that comes next; must outlive it.
  void set_config(const ModelConfig* config) { config_ = config; }

  Rows Allocate(Slot slot, int64_t count, int64_t width) override;
  void WriteRows(const Rows& rows, absl::FunctionRef<void(float*)> write) override { write(Data(rows)); }
  void WithHostRows(const Rows& rows, absl::FunctionRef<bool(float*)> function) override {
    function(Data(rows));
  }
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
  void Free(Slot slot) override;
  void Finish(const Rows&) override {}

 private:
  float* Data(const Rows& rows) {
    return reinterpret_cast<float*>(slots_[static_cast<int>(rows.slot)].data()) + rows.first * rows.width;
  }

  void Count(int64_t bytes);
  void RotateBy(const Rows& x, int64_t heads, const float* sines);

  inline static std::atomic<int64_t> total_bytes_ = 0;

  const ModelConfig* config_ = nullptr;
  std::array<kernels::Buffer, static_cast<int>(Slot::kCount)> slots_;
  int64_t bytes_ = 0;
  absl::Span<const float> cosines_;
  absl::Span<const float> sines_;
  std::vector<float> negated_sines_;  // made when they are first wanted
  int64_t half_ = 0;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CPU_ARITHMETIC_H_
