#include "services/engine/forward/receiver_inputs.h"

#include <set>
#include <vector>

#include "services/engine/forward/columns.h"
#include "services/engine/forward/gradient_hooks.h"

namespace mechinterp::engine {
namespace {

// What reads the residual stream for attention, head by head.
struct HeadsInput {
  HookPoint point;
  Slot slot;  // what its heads make of it
  Slot slot_gradient;
  const LinearWeight& weight;
};

std::vector<HeadsInput> ReceiversOf(const LayerWeights& weights) {
  return {{HookPoint::kQInput, Slot::kQuery, Slot::kQueryGradient, weights.query},
          {HookPoint::kKInput, Slot::kKey, Slot::kKeyGradient, weights.key},
          {HookPoint::kVInput, Slot::kValue, Slot::kValueGradient, weights.value}};
}

// What each head of an item reads, after edits: [T, heads, D].
std::vector<float> Inputs(const Batch::Item& item, const HookSite& site, int64_t heads, const Rows& stream,
                          Arithmetic& math) {
  std::vector<float> inputs = RepeatForHeads(stream, heads, math);
  Batch::EditItem(item, site, inputs.data(), heads, stream.width);
  return inputs;
}

}  // namespace

void HookReceiverInputs(const ModelConfig& config, const Batch& batch, int layer, const Rows& residual,
                        const LayerWeights& weights, HookedArithmetic& steps, Arithmetic& math) {
  for (const HeadsInput& receiver : ReceiversOf(weights)) {
    const HookSite site{receiver.point, layer};
    if (!batch.Wants(site)) continue;
    const int64_t heads = ShapeOf(site.point, config).heads;
    for (const Batch::Item& item : batch.ItemsAt({HookPoint::kResidPre, layer})) {
      if (!Batch::Wants(item, site)) continue;
      const Rows stream = residual.Part(item.first_row, item.rows);
      const std::vector<float> inputs = Inputs(item, site, heads, stream, math);
      Batch::CaptureItem(item, site, inputs.data(), heads, stream.width);
      for (const int head : Batch::EditedHeads(item, site)) {
        const Rows own = math.Allocate(Slot::kReceiverInput, item.rows, stream.width);
        PutHead(inputs, heads, head, own, math);
        const Rows normalized = steps.NormalizeItem(item, own, weights.ln1_gain, HookPoint::kLn1Scale,
                                                    HookPoint::kLn1Normalized, layer);
        const Rows of_head = steps.ProjectPart(normalized, receiver.weight, Slot::kHeadShare,
                                               head * config.head_size, config.head_size);
        PutColumns(of_head, {receiver.slot, item.first_row, item.rows, heads * config.head_size},
                   head * config.head_size, math);
      }
    }
  }
}

namespace {

// One receiver's gradients in one item.
class ReceiverGradients {
 public:
  ReceiverGradients(const ModelConfig& config, const Batch::Item& item, int layer, int run,
                    const HeadsInput& receiver, const Rows& stream, const at::Tensor& gain,
                    BackwardSteps& steps, Arithmetic& math)
      : size_(config.head_size),
        heads_(ShapeOf(receiver.point, config).heads),
        item_(item),
        site_{receiver.point, layer},
        run_(run),
        receiver_(receiver),
        stream_(stream),
        gain_(gain),
        steps_(steps),
        math_(math) {}

  // `gradient`: of the item's stream [T, D].
  void Take(const Rows& gradient) {
    const std::vector<float> inputs = Inputs(item_, site_, heads_, stream_, math_);
    const std::set<int> edited = Batch::EditedHeads(item_, site_);
    std::vector<float> gradients(inputs.size());  // [T, heads, D]
    for (int head = 0; head < heads_; ++head) {
      if (WantsGradient(item_, site_) || edited.count(head) > 0) OfHead(head, inputs, gradients);
    }
    RecordGradient(item_, site_, run_, gradients.data(), heads_, stream_.width);
    TransposeEdits(item_, site_, gradients.data(), heads_, stream_.width);
    for (const int head : edited) {
      const Rows share = math_.Allocate(Slot::kHeadShare, item_.rows, stream_.width);
      PutHead(gradients, heads_, head, share, math_);
      math_.Add(gradient, share);
      const Rows nothing = math_.Allocate(Slot::kHeadAlone, item_.rows, size_);
      math_.Clear(nothing);
      PutColumns(nothing, Output(), head * size_, math_);
    }
  }

 private:
  Rows Output() const { return {receiver_.slot_gradient, item_.first_row, item_.rows, heads_ * size_}; }

  void OfHead(int head, const std::vector<float>& inputs, std::vector<float>& gradients) {
    const Rows own = math_.Allocate(Slot::kReceiverInput, item_.rows, stream_.width);
    PutHead(inputs, heads_, head, own, math_);
    const Rows of_head = math_.Allocate(Slot::kHeadAlone, item_.rows, size_);
    GetColumns(Output(), head * size_, of_head, math_);
    const Rows input = math_.Allocate(Slot::kHeadShare, item_.rows, stream_.width);
    math_.MultiplyTransposed({{&receiver_.weight, of_head, head * size_}}, input);
    steps_.NormalizeItem(item_, own, gain_, HookPoint::kLn1Scale, HookPoint::kLn1Normalized, site_.layer,
                         input);
    GetHead(input, heads_, head, gradients, math_);
  }

  const int64_t size_;
  const int64_t heads_;
  const Batch::Item& item_;
  const HookSite site_;
  const int run_;
  const HeadsInput& receiver_;
  const Rows stream_;
  const at::Tensor& gain_;
  BackwardSteps& steps_;
  Arithmetic& math_;
};

}  // namespace

void HookReceiverInputGradients(const ModelConfig& config, const Batch& batch, int layer, int run,
                                const Rows& residual, const LayerWeights& weights, const Rows& gradient,
                                BackwardSteps& steps, Arithmetic& math) {
  for (const HeadsInput& receiver : ReceiversOf(weights)) {
    const HookSite site{receiver.point, layer};
    for (const Batch::Item& item : batch.items()) {
      if (!Batch::Edits(item, site) && !WantsGradient(item, site)) continue;
      ReceiverGradients(config, item, layer, run, receiver, residual.Part(item.first_row, item.rows),
                        weights.ln1_gain, steps, math)
          .Take(gradient.Part(item.first_row, item.rows));
    }
  }
}

}  // namespace mechinterp::engine
