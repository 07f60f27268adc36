#ifndef SERVICES_ENGINE_FORWARD_FORWARD_H_
#define SERVICES_ENGINE_FORWARD_FORWARD_H_

#include "absl/functional/function_ref.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/hooked_arithmetic.h"
#include "services/engine/forward/norm_scales.h"
#include "services/engine/forward/rotary_angles.h"
#include "services/engine/forward/tape.h"
#include "services/engine/model.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {

// The model: takes a batch through all of it, in the arithmetic of the device that it lies
// on. Throws what that does; the segments are then as far as they came (RunPass, run_pass.h,
// puts them back and is what others call).
//
// Shapes: N rows in the pass, D d_model, H query heads, KV key/value heads, Dh head size, F d_ff.
class ForwardPass {
 public:
  // What a backward pass will read is kept on `tape`; null: nothing is. All must outlive the pass.
  ForwardPass(const Model& model, const Batch& batch, Arithmetic& arithmetic, Tape* tape = nullptr);

  // `abandoned` is asked between layers; false when it said so.
  bool Run(absl::FunctionRef<bool()> abandoned);

  // After Run: computes a block again up to its neurons, from what entered it, and keeps that on
  // the tape. Of a batch whose segments all entered at the beginning.
  void Rerun(int layer);

 private:
  void Embed(const Rows& residual);
  void Block(int layer, const Rows& residual);
  void Attend(int layer, const Rows& residual, const Rows& z);
  void Activate(int layer, const Rows& residual, const Rows& z, const Rows& neurons);
  void AddMlp(int layer, const Rows& residual, const Rows& neurons);
  void Enter(const HookSite& site, const Rows& residual, const Rows* branch = nullptr);
  void Put(const HostTensor& from, const Rows& to);
  void Keep(Slot slot, int layer, const Rows& rows) {
    if (tape_ != nullptr) tape_->Keep(slot, layer, rows);
  }

  const Model& model_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Batch& batch_;
  Arithmetic& math_;
  Tape* const tape_;
  HookedArithmetic steps_;
  NormScales norm_scales_;
  const RotaryAngles angles_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_FORWARD_H_
