#include "data/trainer/model.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "services/engine/checkpoint/tensor_table.h"

namespace mechinterp::trainer {
namespace {

at::Tensor RandomMatrix(int64_t rows, int64_t columns, double deviation, Random& random) {
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  float* values = matrix.data_ptr<float>();
  for (int64_t i = 0; i < rows * columns; ++i) values[i] = static_cast<float>(deviation * random.Normal());
  return matrix;
}

at::Tensor Attention(const ModelConfig& config, const LayerWeights& layer, int64_t index, const at::Tensor& x,
                     const Rotation& rotation, const at::Tensor& mask, KvCache* cache,
                     const ModelHooks& hooks) {
  const int64_t batch = x.size(0), length = x.size(1);
  const at::Tensor q = Rotate(SplitHeads(at::linear(x, layer.q), config.heads), rotation);
  at::Tensor k = Rotate(SplitHeads(at::linear(x, layer.k), config.kv_heads), rotation);
  at::Tensor v = SplitHeads(at::linear(x, layer.v), config.kv_heads);
  if (cache != nullptr) {
    const size_t i = static_cast<size_t>(index);
    if (cache->keys.size() <= i) {
      cache->keys.push_back(k);
      cache->values.push_back(v);
    } else {
      k = cache->keys[i] = at::cat({cache->keys[i], k}, 2);
      v = cache->values[i] = at::cat({cache->values[i], v}, 2);
    }
  }
  const int64_t group = config.heads / config.kv_heads;  // query heads per kv head
  const at::Tensor keys = at::repeat_interleave(k, group, 1);
  const at::Tensor values = at::repeat_interleave(v, group, 1);
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  const at::Tensor scores = at::matmul(q, keys.transpose(-1, -2)) * scale + mask;  // [B, H, T, S]
  at::Tensor z = at::matmul(at::softmax(scores, -1), values).transpose(1, 2);      // [B, T, H, Dh]
  if (hooks.on_z) z = hooks.on_z(index, z);
  return at::linear(z.reshape({batch, length, config.heads * config.head_dim}), layer.o);
}

at::Tensor Mlp(const LayerWeights& layer, int64_t index, const at::Tensor& x, const ModelHooks& hooks) {
  at::Tensor post = at::silu(at::linear(x, layer.gate)) * at::linear(x, layer.up);  // [B, T, F]
  if (hooks.on_post) post = hooks.on_post(index, post);
  return at::linear(post, layer.down);
}

at::Tensor& TensorOf(Weights& weights, const engine::TensorInfo& info) {
  using engine::TensorRole;
  if (info.role == TensorRole::kEmbedding) return weights.embedding;
  if (info.layer < 0) return weights.final_norm;
  LayerWeights& layer = weights.layers[static_cast<size_t>(info.layer)];
  switch (info.role) {
    case TensorRole::kLn1Gain:
      return layer.input_norm;
    case TensorRole::kQuery:
      return layer.q;
    case TensorRole::kKey:
      return layer.k;
    case TensorRole::kValue:
      return layer.v;
    case TensorRole::kOutput:
      return layer.o;
    case TensorRole::kLn2Gain:
      return layer.post_norm;
    case TensorRole::kGate:
      return layer.gate;
    case TensorRole::kUp:
      return layer.up;
    default:
      return layer.down;
  }
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& gain, double epsilon) {
  return x * at::rsqrt(at::mean(x * x, -1, /*keepdim=*/true) + epsilon) * gain;
}

Rotation RotationAt(const ModelConfig& config, int64_t first, int64_t count) {
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kFloat) / double(config.head_dim);
  const at::Tensor frequencies = at::pow(at::scalar_tensor(config.rope_theta, at::kFloat), -exponents);
  const at::Tensor angles = at::outer(at::arange(first, first + count, at::kFloat), frequencies);
  const at::Tensor both = at::cat({angles, angles}, -1);
  return {at::cos(both), at::sin(both)};
}

at::Tensor Rotate(const at::Tensor& x, const Rotation& rotation) {
  const std::vector<at::Tensor> halves = at::chunk(x, 2, -1);
  return x * rotation.cos + at::cat({-halves[1], halves[0]}, -1) * rotation.sin;
}

at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

at::Tensor CausalMask(int64_t past, int64_t length) {
  return at::triu(at::full({length, past + length}, -std::numeric_limits<float>::infinity()), past + 1);
}

std::vector<NamedTensor> Weights::Named() {
  engine::ModelConfig architecture;
  architecture.layers.resize(layers.size());
  architecture.tied_embeddings = true;
  std::vector<NamedTensor> named;
  for (const engine::TensorInfo& info : engine::ModelTensors(architecture)) {
    if (!info.optional) named.push_back({info.name, &TensorOf(*this, info)});
  }
  return named;
}

Weights InitialWeights(const ModelConfig& config, Random& random) {
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  const auto matrix = [&](int64_t out, int64_t in, double scale) {
    return RandomMatrix(out, in, scale / std::sqrt(static_cast<double>(in)), random);
  };
  // What writes into the residual stream starts smaller the deeper the model is.
  const double output_scale = 1.0 / std::sqrt(2.0 * static_cast<double>(config.layers));
  Weights weights;
  weights.embedding = RandomMatrix(config.vocab_size, d, 0.05, random);
  for (int64_t i = 0; i < config.layers; ++i) {
    LayerWeights layer;
    layer.input_norm = at::ones({d});
    layer.q = matrix(q, d, 1);
    layer.k = matrix(kv, d, 1);
    layer.v = matrix(kv, d, 1);
    layer.o = matrix(d, q, output_scale);
    layer.post_norm = at::ones({d});
    layer.gate = matrix(f, d, 1);
    layer.up = matrix(f, d, 1);
    layer.down = matrix(d, f, output_scale);
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = at::ones({d});
  return weights;
}

Weights GradientView(Weights& weights) {
  Weights view = weights;
  for (const NamedTensor& parameter : view.Named()) {
    *parameter.tensor = parameter.tensor->detach().set_requires_grad(true);
  }
  return view;
}

at::Tensor Forward(const ModelConfig& config, const Weights& weights, const at::Tensor& ids, KvCache* cache,
                   const ModelHooks& hooks) {
  const int64_t past = cache == nullptr ? 0 : cache->length(), length = ids.size(1);
  const Rotation rotation = RotationAt(config, past, length);
  const at::Tensor mask = CausalMask(past, length);
  at::Tensor residual = at::embedding(weights.embedding, ids);  // [B, T, D]
  for (int64_t i = 0; i < config.layers; ++i) {
    const LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
    residual =
        residual + Attention(config, layer, i, RmsNorm(residual, layer.input_norm, config.norm_epsilon),
                             rotation, mask, cache, hooks);
    residual = residual + Mlp(layer, i, RmsNorm(residual, layer.post_norm, config.norm_epsilon), hooks);
  }
  return RmsNorm(residual, weights.final_norm, config.norm_epsilon);
}

at::Tensor Logits(const Weights& weights, const at::Tensor& hidden) {
  return at::linear(hidden, weights.embedding);
}

}  // namespace mechinterp::trainer
