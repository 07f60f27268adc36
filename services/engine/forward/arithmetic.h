#ifndef SERVICES_ENGINE_FORWARD_ARITHMETIC_H_
#define SERVICES_ENGINE_FORWARD_ARITHMETIC_H_

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/gradient_plan.h"
#include "services/engine/weights/linear_weight.h"

namespace mechinterp::engine {

// The intermediate results of a forward pass.
enum class Slot {
  kResidual,
  kScale,
  kNormScales,  // kept of every norm, see norm_scales.h
  kNormalized,
  kQuery,
  kKey,
  kValue,
  kZ,
  kHeadAlone,  // one head's z
  kHeadShare,  // what that head adds to attn_out; or what one projects of an input of its own
  kReceiverInput,
  kGate,
  kUp,
  kNeurons,
  kBlockOut,  // of attention, then of the MLP
  kHeadRows,
  kLogits,

  // Of every layer, or of one at a time; see tape.h.
  kKeptEntering,  // the residual stream as it enters a block, before that block's edits
  kKeptStream,    // as attention reads it
  kKeptQueryBeforeNorm,
  kKeptKeyBeforeNorm,
  kKeptQuery,  // as attention multiplies them
  kKeptKey,
  kKeptValue,
  kKeptMlpStream,  // the residual stream as the MLP reads it
  kKeptGate,
  kKeptUp,

  // Gradients with respect to what has the name without the last word; from here on all are of
  // the way back alone.
  kResidualGradient,
  kHeadRowsGradient,
  kLogitsGradient,
  kBlockOutGradient,
  kNeuronsGradient,
  kGateGradient,
  kUpGradient,
  kInputGradient,  // of a block's part, before its norm
  kZGradient,
  kQueryGradient,
  kKeyGradient,
  kValueGradient,
  kScaleGradient,
  kRootMeanSquare,  // a scale before edits, where that is another

  kCount,
};

// Consecutive rows of a slot's matrix.
struct Rows {
  Slot slot = Slot::kResidual;
  int64_t first = 0;
  int64_t count = 0;
  int64_t width = 0;

  Rows Part(int64_t begin, int64_t rows) const { return {slot, first + begin, rows, width}; }
  // The same values as shorter rows, `parts` out of each.
  Rows SplitInto(int64_t parts) const { return {slot, first * parts, count * parts, width / parts}; }
  int64_t size() const { return count * width; }
};

// What a device computes of a forward pass, and the memory it computes in: all that
// differs between devices is behind this. The forward pass itself (forward.cc) is the
// same everywhere.
//
// Values are fp32 between operations, whatever the products' operands are rounded to.
// For one pass at a time, in the thread that uses the device. Throws what libtorch
// throws (c10::Error, std::bad_alloc).
class Arithmetic {
 public:
  virtual ~Arithmetic() = default;

  // A slot as [count, width], of undefined contents: what it held before is gone.
  virtual Rows Allocate(Slot slot, int64_t count, int64_t width) = 0;

  // Has the host write rows, row-major; those that `write` leaves are of undefined contents.
  virtual void WriteRows(const Rows& rows, absl::FunctionRef<void(float*)> write) = 0;
  // Sets them to zero.
  void Clear(const Rows& rows) {
    WriteRows(rows, [&](float* values) { std::fill_n(values, rows.size(), 0.0f); });
  }
  // Shows rows to the host. What it changed is kept if `function` returns true.
  virtual void WithHostRows(const Rows& rows, absl::FunctionRef<bool(float*)> function) = 0;
  virtual void Copy(const Rows& from, const Rows& to) = 0;

  // scale [N, 1] = sqrt(mean(x^2) + epsilon), by row.
  virtual void RootMeanSquare(const Rows& x, float epsilon, const Rows& scale) = 0;
  // y = x / scale, by row.
  virtual void DivideRows(const Rows& x, const Rows& scale, const Rows& y) = 0;
  // x *= gain [width], by column.
  virtual void MultiplyColumns(const Rows& x, const at::Tensor& gain) = 0;
  // x += bias [width], by column.
  virtual void AddColumns(const Rows& x, const at::Tensor& bias) = 0;

  struct Product {
    const LinearWeight* weight;
    Slot slot;
    int64_t first_output = 0;
    int64_t end_output = std::numeric_limits<int64_t>::max();  // or the last one
  };
  // x w^T for each of the weights, without its bias, in its slot: [N, out], or those outputs
  // that are wanted. The weights' inputs have one length.
  virtual void Multiply(const Rows& x, absl::Span<const Product> products) = 0;
  // The same of some inputs, x [N, some], from `first_input` on: with all others zero. In `slot`.
  virtual void MultiplyInputs(const Rows& x, const LinearWeight& weight, int64_t first_input, Slot slot) = 0;

  virtual void Add(const Rows& x, const Rows& y) = 0;  // x += y
  // y = SiLU(gate) * up.
  virtual void SiluMultiply(const Rows& gate, const Rows& up, const Rows& y) = 0;

  // Cosines and sines of each row's rotary angles, [N, Dh / 2], for Rotate.
  virtual void SetAngles(absl::Span<const float> cosines, absl::Span<const float> sines, int64_t half) = 0;
  // Rotates each head of each row, [N, heads * Dh], in place; row i of `x` by angle i.
  virtual void Rotate(const Rows& x, int64_t heads) = 0;

  // Causal grouped-query attention of every segment that has entered by the layer's
  // beginning, each over its own positions. query [N, H * Dh], key and value [N, KV * Dh],
  // after RoPE; keys and values are appended to the segments' caches. Writes z [N, H * Dh].
  // A query sees what is in its layer's window (LayerConfig).
  // Applies the hooks on scores and pattern.
  virtual void Attend(const Batch& batch, int layer, const Rows& query, const Rows& key, const Rows& value,
                      const Rows& z) = 0;

  // The way back. A gradient has the shape of what it is a gradient with respect to.

  struct TransposedProduct {
    const LinearWeight* weight;
    Rows gradient;             // [N, out], or [N, some] with respect to
    int64_t first_output = 0;  // the outputs from this one on
  };
  // x_gradient [N, in] = the sum over the products of gradient w.
  virtual void MultiplyTransposed(absl::Span<const TransposedProduct> products, const Rows& x_gradient) = 0;
  // See kernels/gradient_rows.h for these three.
  virtual void ScaleGradient(const Rows& x, const Rows& scale, const Rows& gradient,
                             const Rows& scale_gradient) = 0;
  virtual void NormGradient(const Rows& x, const Rows& root, const Rows& scale, const Rows& root_gradient,
                            const Rows& gradient) = 0;
  virtual void SiluMultiplyGradient(BackwardRule rule, const Rows& gate, const Rows& up, const Rows& gradient,
                                    const Rows& gate_gradient, const Rows& up_gradient) = 0;
  // Rotate's transpose.
  virtual void RotateBack(const Rows& x, int64_t heads) = 0;

  // Of attention, for all of a batch's segments: query, key, value as Attend had them, or their
  // gradients, which are written; z_gradient [N, H * Dh].
  struct AttentionRows {
    Rows query;
    Rows key;
    Rows value;
  };
  // Of run `run` of each segment's plan. Records what it wants of scores and pattern, and goes
  // through the edits there.
  virtual void AttendBackward(const Batch& batch, int layer, int run, const AttentionRows& forward,
                              const Rows& z_gradient, const AttentionRows& gradients) = 0;

  // Gives a slot's memory back.
  virtual void Free(Slot slot) = 0;

  // Waits until the rows are computed, so that an error of the device comes up here; for
  // passes that nothing is read of.
  virtual void Finish(const Rows& rows) = 0;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ARITHMETIC_H_
