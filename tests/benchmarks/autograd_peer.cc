#include "tests/benchmarks/autograd_peer.h"

#include <torch/torch.h>

#include <cmath>
#include <vector>

namespace mechinterp::benchmarks {
namespace {

struct Layer {
  at::Tensor query, key, value, output, gate, up, down;
};

at::Tensor Normalize(const at::Tensor& x) { return x * at::rsqrt(x.pow(2).mean(-1, true) + 1e-5); }

// [heads, T, Dh], each half by half (Su et al. 2021).
at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cosines, const at::Tensor& sines) {
  const std::vector<at::Tensor> halves = x.chunk(2, -1);
  return x * cosines + at::cat({-halves[1], halves[0]}, -1) * sines;
}

}  // namespace

struct AutogradPeer::Network {
  explicit Network(const engine::ModelConfig& shape) : config(shape) {
    const at::NoGradGuard no_grad;
    const auto random = [](int64_t out, int64_t in) { return at::randn({out, in}).mul_(0.02); };
    const int64_t d = config.d_model, q = config.query_width(), kv = config.key_value_width(),
                  f = config.d_ff;
    for (int layer = 0; layer < config.layer_count(); ++layer) {
      layers.push_back({random(q, d), random(kv, d), random(kv, d), random(d, q), random(f, d), random(f, d),
                        random(d, f)});
    }
    head = random(config.vocabulary_size, d);
  }

  // Logits of the last position; `seen` are z and mlp_post, layer by layer.
  at::Tensor Run(at::Tensor x, std::vector<at::Tensor>& seen) const {
    const int64_t t = x.size(0), heads = config.head_count, kv_heads = config.key_value_head_count,
                  size = config.head_size;
    const at::Tensor angles = at::arange(t).unsqueeze(1) *
                              at::pow(5e5, -at::arange(0, size, 2, at::kFloat) / static_cast<double>(size));
    const at::Tensor cosines = at::cat({angles, angles}, -1).cos(),
                     sines = at::cat({angles, angles}, -1).sin();
    const at::Tensor mask = at::full({t, t}, -INFINITY).triu(1);
    const auto by_head = [&](const at::Tensor& rows, int64_t count) {
      return rows.view({t, count, size}).transpose(0, 1);
    };
    for (const Layer& layer : layers) {
      const at::Tensor in = Normalize(x);
      const at::Tensor q = Rotate(by_head(at::linear(in, layer.query), heads), cosines, sines);
      const at::Tensor k = Rotate(by_head(at::linear(in, layer.key), kv_heads), cosines, sines);
      const at::Tensor v = by_head(at::linear(in, layer.value), kv_heads);
      const auto repeat = [&](const at::Tensor& rows) { return rows.repeat_interleave(heads / kv_heads, 0); };
      const at::Tensor scores =
          at::matmul(q, repeat(k).transpose(1, 2)) / std::sqrt(static_cast<double>(size)) + mask;
      at::Tensor z =
          at::matmul(at::softmax(scores, -1), repeat(v)).transpose(0, 1).reshape({t, heads * size});
      x = x + at::linear(Keep(z, seen), layer.output);
      const at::Tensor mlp_in = Normalize(x);
      at::Tensor neurons = at::silu(at::linear(mlp_in, layer.gate)) * at::linear(mlp_in, layer.up);
      x = x + at::linear(Keep(neurons, seen), layer.down);
    }
    return at::linear(Normalize(x.narrow(0, t - 1, 1)), head);
  }

  static at::Tensor Keep(const at::Tensor& activation, std::vector<at::Tensor>& seen) {
    if (activation.requires_grad()) activation.retain_grad();
    seen.push_back(activation);
    return activation;
  }

  const engine::ModelConfig config;
  std::vector<Layer> layers;
  at::Tensor head;
};

AutogradPeer::AutogradPeer(const engine::ModelConfig& config, int threads) {
  at::set_num_threads(threads);
  network_ = std::make_unique<Network>(config);
}

AutogradPeer::~AutogradPeer() = default;

double AutogradPeer::Attribute(int prompt_tokens) {
  const int64_t d = network_->config.d_model;
  std::vector<at::Tensor> source, clean;
  {
    const at::NoGradGuard no_grad;
    network_->Run(at::randn({prompt_tokens, d}), source);
  }
  const at::Tensor logits = network_->Run(at::randn({prompt_tokens, d}).requires_grad_(true), clean);
  (logits[0][1] - logits[0][2]).backward();
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (size_t i = 0; i < clean.size(); ++i) {
    sum += ((source[i] - clean[i]) * clean[i].grad()).sum().item<double>();
  }
  return sum;
}

}  // namespace mechinterp::benchmarks
