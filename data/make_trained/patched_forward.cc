#include "data/make_trained/patched_forward.h"

#include <ATen/ATen.h>

#include <cmath>

namespace mechinterp::make_trained {
namespace {

using trainer::LayerWeights;
using trainer::ModelConfig;
using trainer::Rotation;

// One pass: the stream, and who wrote what into it.
class Pass {
 public:
  Pass(const ModelConfig& config, const EdgePatch* patch, const at::Tensor& ids)
      : config_(config),
        space_(SpaceOf(config)),
        patch_(patch),
        rotation_(trainer::RotationAt(config, 0, ids.size(1))),
        mask_(trainer::CausalMask(0, ids.size(1))) {}

  void Write(const at::Tensor& output) {  // [B, T, D]
    stream_ = senders_.empty() ? output : stream_ + output;
    senders_.push_back(output);
  }

  // What `count` receivers from `first` on see, normalized: [B, count, T, D], or, where nothing is
  // patched and all see the same, [B, 1, T, D].
  at::Tensor Read(int first, int count, const at::Tensor& gain) const {
    at::Tensor seen = stream_.unsqueeze(1);
    if (patch_ != nullptr) seen = seen + Changes(first, count);
    return trainer::RmsNorm(seen, gain, config_.norm_epsilon);
  }

  void Attention(int layer, const LayerWeights& weights) {
    const int64_t heads = config_.heads, kv = config_.kv_heads;
    const at::Tensor x = Read(space_.Query(layer, 0), static_cast<int>(heads + 2 * kv), weights.input_norm);
    const at::Tensor q = trainer::Rotate(Project(Part(x, 0, heads), weights.q, heads), rotation_);
    const at::Tensor k = trainer::Rotate(Project(Part(x, heads, kv), weights.k, kv), rotation_);
    const at::Tensor v = Project(Part(x, heads + kv, kv), weights.v, kv);
    const at::Tensor keys = at::repeat_interleave(k, heads / kv, 1);
    const at::Tensor values = at::repeat_interleave(v, heads / kv, 1);
    const double scale = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
    const at::Tensor scores = at::matmul(q, keys.transpose(-1, -2)) * scale + mask_;
    patterns_.push_back(at::softmax(scores, -1));                            // [B, H, T, T]
    const at::Tensor z = at::matmul(patterns_.back(), values);               // [B, H, T, Dh]
    const std::vector<at::Tensor> outputs = at::chunk(weights.o, heads, 1);  // [D, Dh] each
    for (int64_t head = 0; head < heads; ++head) {
      Write(at::linear(z.select(1, head), outputs[static_cast<size_t>(head)]));
    }
  }

  void Mlp(int layer, const LayerWeights& weights) {
    const at::Tensor x = Read(space_.MlpIn(layer), 1, weights.post_norm).squeeze(1);
    const at::Tensor post = at::silu(at::linear(x, weights.gate)) * at::linear(x, weights.up);  // [B, T, F]
    Write(at::linear(post, weights.down));
  }

  EdgeRun Finish(const at::Tensor& gain) && {
    return {Read(space_.Final(), 1, gain).squeeze(1), std::move(senders_), std::move(patterns_)};
  }

 private:
  // [B, count, T, D]: for each receiver the sum over its patched senders of source less current.
  at::Tensor Changes(int first, int count) const {
    const int64_t visible = static_cast<int64_t>(senders_.size());
    const std::vector<at::Tensor> sources(patch_->source.begin(), patch_->source.begin() + visible);
    const at::Tensor difference = at::stack(sources, 1) - at::stack(senders_, 1);  // [B, S, T, D]
    const at::Tensor mask =
        patch_->mask.narrow(1, 0, visible).narrow(2, first, count).transpose(1, 2);  // [B, count, S]
    const at::Tensor sum = at::bmm(mask, difference.flatten(2));
    return sum.view({sum.size(0), count, difference.size(2), difference.size(3)});
  }

  static at::Tensor Part(const at::Tensor& x, int64_t first, int64_t count) {
    return x.size(1) == 1 ? x : x.narrow(1, first, count);
  }

  // [B, heads or 1, T, D] by [heads * Dh, D]: [B, heads, T, Dh]
  at::Tensor Project(const at::Tensor& x, const at::Tensor& weight, int64_t heads) const {
    if (x.size(1) == 1) return trainer::SplitHeads(at::linear(x.squeeze(1), weight), heads);
    return at::einsum("bhtd,hed->bhte", {x, weight.view({heads, config_.head_dim, config_.hidden_size})});
  }

  const ModelConfig& config_;
  EdgeSpace space_;
  const EdgePatch* patch_;
  Rotation rotation_;
  at::Tensor mask_;    // [T, T]
  at::Tensor stream_;  // [B, T, D]
  std::vector<at::Tensor> senders_, patterns_;
};

}  // namespace

EdgeSpace SpaceOf(const ModelConfig& config) {
  return {static_cast<int>(config.layers), static_cast<int>(config.heads), static_cast<int>(config.kv_heads)};
}

EdgeRun RunEdges(const ModelConfig& config, const trainer::Weights& weights, const at::Tensor& ids,
                 const EdgePatch* patch) {
  Pass pass(config, patch, ids);
  pass.Write(at::embedding(weights.embedding, ids));
  for (int layer = 0; layer < config.layers; ++layer) {
    pass.Attention(layer, weights.layers[static_cast<size_t>(layer)]);
    pass.Mlp(layer, weights.layers[static_cast<size_t>(layer)]);
  }
  return std::move(pass).Finish(weights.final_norm);
}

}  // namespace mechinterp::make_trained
