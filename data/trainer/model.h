#ifndef DATA_TRAINER_MODEL_H_
#define DATA_TRAINER_MODEL_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/trainer/random.h"

namespace mechinterp::trainer {

// The shape of the embedded model. `rope_theta` and `norm_epsilon` as in Llama 3's
// config.json.
struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 128;
  int64_t layers = 8;
  int64_t heads = 8;
  int64_t kv_heads = 4;
  int64_t head_dim = 16;
  int64_t intermediate_size = 352;
  int64_t max_positions = 512;
  double rope_theta = 10000;
  double norm_epsilon = 1e-5;
};

// Weights of one decoder block, [out, in] as Hugging Face stores them.
struct LayerWeights {
  at::Tensor input_norm;      // [D]
  at::Tensor q, k, v, o;      // [H*Dh, D] [KV*Dh, D] [KV*Dh, D] [D, H*Dh]
  at::Tensor post_norm;       // [D]
  at::Tensor gate, up, down;  // [F, D] [F, D] [D, F]
};

// A parameter by its name in a checkpoint.
struct NamedTensor {
  std::string name;
  at::Tensor* tensor = nullptr;
};

// The weights; the output head is the embedding (tied). Plain data: may be read
// from many threads; who writes must be alone.
struct Weights {
  at::Tensor embedding;  // [V, D]
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;  // [D]

  // Every tensor under Hugging Face's name, in a fixed order.
  std::vector<NamedTensor> Named();
};

// Small random weights, from the seed alone.
Weights InitialWeights(const ModelConfig& config, Random& random);

// Leaves for autograd that share the storage of `weights` but have gradients of
// their own, so that two threads can differentiate at once.
Weights GradientView(Weights& weights);

// Keys and values of the positions seen so far, per layer [B, KV, T, Dh].
struct KvCache {
  std::vector<at::Tensor> keys, values;
  int64_t length() const { return keys.empty() ? 0 : keys[0].size(2); }
};

// Where the study reads and edits: each is given the layer and a tensor and
// returns the tensor to go on with. Empty functions cost nothing.
struct ModelHooks {
  std::function<at::Tensor(int64_t layer, at::Tensor z)> on_z;        // [B, T, H, Dh]
  std::function<at::Tensor(int64_t layer, at::Tensor post)> on_post;  // [B, T, F]
};

// The residual stream after the last norm, [B, T, D], for token ids [B, T] that
// follow the positions in `cache`. With no cache it is null and nothing is kept.
at::Tensor Forward(const ModelConfig& config, const Weights& weights, const at::Tensor& ids,
                   KvCache* cache = nullptr, const ModelHooks& hooks = {});

// The pass's parts, for passes of others over the same weights (data/make_trained).
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain, double epsilon);
struct Rotation {
  at::Tensor cos, sin;  // [T, Dh]
};
Rotation RotationAt(const ModelConfig& config, int64_t first, int64_t count);
// Hugging Face's rotate-half form of RoPE; x is [B, heads, T, Dh].
at::Tensor Rotate(const at::Tensor& x, const Rotation& rotation);
// [B, T, heads * Dh] -> [B, heads, T, Dh]
at::Tensor SplitHeads(const at::Tensor& x, int64_t heads);
// [T, past + T], added to scores: a position sees itself and what is before it.
at::Tensor CausalMask(int64_t past, int64_t length);

// Logits [..., V] of normalized hidden states [..., D].
at::Tensor Logits(const Weights& weights, const at::Tensor& hidden);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_MODEL_H_
