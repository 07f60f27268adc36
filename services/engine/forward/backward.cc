#include "services/engine/forward/backward.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "services/engine/forward/backward_steps.h"
#include "services/engine/forward/gradient_hooks.h"
#include "services/engine/forward/head_gradient.h"
#include "services/engine/forward/head_results.h"
#include "services/engine/forward/receiver_inputs.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

// What a run back that goes through the blocks has of the forward pass.
struct Forward {
  ForwardPass& pass;
  const Tape& tape;
};

// One run back. Shapes as in forward.h.
class Pass {
 public:
  // `forward`: null for a direct one.
  Pass(const Model& model, const Batch& batch, const Forward* forward, int run, Arithmetic& arithmetic)
      : model_(model),
        config_(model.config()),
        batch_(batch),
        forward_(forward),
        run_(run),
        math_(arithmetic),
        steps_(config_, batch, run, arithmetic) {}

  bool Run(absl::FunctionRef<bool()> abandoned) {
    const Rows gradient = math_.Allocate(Slot::kResidualGradient, batch_.row_count(), config_.d_model);
    RunHeadBackward(model_, batch_, run_, gradient, math_);
    for (int layer = config_.layer_count() - 1; layer >= 0; --layer) {
      if (abandoned()) return false;
      if (forward_ != nullptr && !tape().keeps_all_layers()) Rerun(layer);
      Mlp(layer, gradient);
      Attention(layer, gradient);
    }
    steps_.Hook(HookPoint::kEmbed, 0, gradient);
    math_.Finish(gradient);
    return true;
  }

 private:
  const Tape& tape() const { return forward_->tape; }

  // What it captures again is let go of.
  void Rerun(int layer) {
    forward_->pass.Rerun(layer);
    for (const Batch::Item& item : batch_.items()) item.segment->activations.clear();
  }

  // From the gradient with respect to resid_post [N, D] to that with respect to resid_mid.
  void Mlp(int layer, const Rows& gradient) {
    steps_.Hook(HookPoint::kResidPost, layer, gradient);
    const Rows out = BlockOut(layer, gradient);
    steps_.Hook(HookPoint::kMlpOut, layer, out);
    const Rows neurons = math_.Allocate(Slot::kNeuronsGradient, gradient.count, config_.d_ff);
    math_.MultiplyTransposed({{&model_.weights().layers[layer].down, out}}, neurons);
    steps_.Hook(HookPoint::kMlpPost, layer, neurons);
    if (forward_ != nullptr) ThroughMlp(layer, neurons, gradient);
    steps_.Hook(HookPoint::kResidMid, layer, gradient);
  }

  // Adds to `gradient` what comes from the neurons' by way of the MLP's input.
  void ThroughMlp(int layer, const Rows& neurons, const Rows& gradient) {
    const LayerWeights& w = model_.weights().layers[layer];
    steps_.SiluMultiply(tape().Of(Slot::kKeptGate, layer), tape().Of(Slot::kKeptUp, layer), neurons);
    const Rows gate{Slot::kGateGradient, 0, gradient.count, config_.d_ff};
    const Rows up{Slot::kUpGradient, 0, gradient.count, config_.d_ff};
    steps_.Hook(HookPoint::kMlpPreLinear, layer, up);
    steps_.Hook(HookPoint::kMlpPre, layer, gate);
    const Rows input = math_.Allocate(Slot::kInputGradient, gradient.count, config_.d_model);
    math_.MultiplyTransposed({{&w.gate, gate}, {&w.up, up}}, input);
    steps_.Normalize(tape().Of(Slot::kKeptMlpStream, layer), w.ln2_gain, HookPoint::kLn2Scale,
                     HookPoint::kLn2Normalized, layer, input);
    steps_.Hook(HookPoint::kMlpIn, layer, input);
    math_.Add(gradient, input);
  }

  // From the gradient with respect to resid_mid to that with respect to what entered the block.
  void Attention(int layer, const Rows& gradient) {
    const LinearWeight& output = model_.weights().layers[layer].output;
    const Rows out = BlockOut(layer, gradient);
    steps_.Hook(HookPoint::kAttnOut, layer, out);
    const Rows z = math_.Allocate(Slot::kZGradient, gradient.count, config_.query_width());
    math_.MultiplyTransposed({{&output, out}}, z);
    HookHeadResultGradients(config_, batch_, layer, run_, output, out, z, math_);
    steps_.Hook(HookPoint::kZ, layer, z);
    if (forward_ != nullptr) ThroughAttention(layer, z, gradient);
    steps_.Hook(HookPoint::kResidPre, layer, gradient);
  }

  // Adds to `gradient` what comes from z's by way of queries, keys and values.
  void ThroughAttention(int layer, const Rows& z, const Rows& gradient) {
    const LayerWeights& w = model_.weights().layers[layer];
    const int64_t n = gradient.count;
    const Arithmetic::AttentionRows gradients{
        math_.Allocate(Slot::kQueryGradient, n, config_.query_width()),
        math_.Allocate(Slot::kKeyGradient, n, config_.key_value_width()),
        math_.Allocate(Slot::kValueGradient, n, config_.key_value_width())};
    math_.AttendBackward(batch_, layer, run_,
                         {tape().Of(Slot::kKeptQuery, layer), tape().Of(Slot::kKeptKey, layer),
                          tape().Of(Slot::kKeptValue, layer)},
                         z, gradients);
    steps_.Hook(HookPoint::kRotQ, layer, gradients.query);
    steps_.Hook(HookPoint::kRotK, layer, gradients.key);
    math_.RotateBack(gradients.query, config_.head_count);
    math_.RotateBack(gradients.key, config_.key_value_head_count);
    if (config_.layers[layer].query_key_norm) {
      steps_.NormalizeHeads(tape().Of(Slot::kKeptQueryBeforeNorm, layer), config_.head_count,
                            w.query_norm_gain, gradients.query);
      steps_.NormalizeHeads(tape().Of(Slot::kKeptKeyBeforeNorm, layer), config_.key_value_head_count,
                            w.key_norm_gain, gradients.key);
    }
    steps_.Hook(HookPoint::kQ, layer, gradients.query);
    steps_.Hook(HookPoint::kK, layer, gradients.key);
    steps_.Hook(HookPoint::kV, layer, gradients.value);
    const Rows stream = tape().Of(Slot::kKeptStream, layer);
    HookReceiverInputGradients(config_, batch_, layer, run_, stream, w, gradient, steps_, math_);
    const Rows input = math_.Allocate(Slot::kInputGradient, n, config_.d_model);
    math_.MultiplyTransposed(
        {{&w.query, gradients.query}, {&w.key, gradients.key}, {&w.value, gradients.value}}, input);
    steps_.Normalize(stream, w.ln1_gain, HookPoint::kLn1Scale, HookPoint::kLn1Normalized, layer, input);
    math_.Add(gradient, input);
  }

  // The gradient with respect to what attention, or the MLP, adds to the stream [N, D].
  Rows BlockOut(int layer, const Rows& gradient) {
    const Rows out = math_.Allocate(Slot::kBlockOutGradient, gradient.count, gradient.width);
    math_.Copy(gradient, out);
    steps_.Drop(layer, out);
    return out;
  }

  const Model& model_;
  const ModelConfig& config_;
  const Batch& batch_;
  const Forward* const forward_;
  const int run_;
  Arithmetic& math_;
  BackwardSteps steps_;
};

// Puts aside what the forward pass captured, as long as parts of it may run again.
class CapturesAside {
 public:
  explicit CapturesAside(const Batch& batch) : batch_(batch) {
    for (const Batch::Item& item : batch_.items()) kept_.push_back(std::move(item.segment->activations));
  }
  CapturesAside(const CapturesAside&) = delete;
  CapturesAside& operator=(const CapturesAside&) = delete;
  ~CapturesAside() {
    for (size_t i = 0; i < kept_.size(); ++i) batch_.items()[i].segment->activations = std::move(kept_[i]);
  }

 private:
  const Batch& batch_;
  std::vector<std::map<HookSite, RecordedActivation>> kept_;
};

// Gives back what only the way back works in: it is as large as its rare passes were.
class GradientSlots {
 public:
  explicit GradientSlots(Arithmetic& math) : math_(math) {}
  GradientSlots(const GradientSlots&) = delete;
  GradientSlots& operator=(const GradientSlots&) = delete;
  ~GradientSlots() {
    for (int slot = static_cast<int>(Slot::kResidualGradient); slot < static_cast<int>(Slot::kCount);
         ++slot) {
      math_.Free(static_cast<Slot>(slot));
    }
  }

 private:
  Arithmetic& math_;
};

// All the plans' runs, over rows of a batch.
bool RunBack(const Model& model, const Batch& batch, const Forward* forward, Arithmetic& arithmetic,
             absl::FunctionRef<bool()> abandoned) {
  size_t runs = 0;
  for (const Batch::Item& item : batch.items()) {
    runs = std::max(runs, item.segment->gradient->runs.size());
    item.segment->gradients.clear();
    item.segment->gradients.resize(item.segment->gradient->runs.size());
  }
  const GradientSlots gradient_slots(arithmetic);
  for (size_t run = 0; run < runs; ++run) {
    if (!Pass(model, batch, forward, static_cast<int>(run), arithmetic).Run(abandoned)) return false;
  }
  return true;
}

}  // namespace

bool BackwardPass(const Model& model, const Batch& batch, ForwardPass& forward, const Tape& tape,
                  Arithmetic& arithmetic, absl::FunctionRef<bool()> abandoned) {
  const CapturesAside captures_aside(batch);
  const Forward made{forward, tape};
  return RunBack(model, batch, &made, arithmetic, abandoned);
}

bool DirectBackwardPass(const Model& model, const Batch& batch, Arithmetic& arithmetic,
                        absl::FunctionRef<bool()> abandoned) {
  return RunBack(model, batch.HeadRows(), nullptr, arithmetic, abandoned);
}

}  // namespace mechinterp::engine
