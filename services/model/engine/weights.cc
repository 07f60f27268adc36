#include "services/model/engine/weights.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/float16.h"
#include "services/common/status_macros.h"
#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/nf4.h"

namespace mechinterp::engine {
namespace {

absl::StatusOr<at::Tensor> LoadTensor(const Checkpoint& checkpoint, const std::string& name,
                                      const std::vector<int64_t>& shape) {
  HostTensor host;
  if (IsNf4(checkpoint, name)) {
    ABSTRACT_ASSIGN_OR_RETURN(host, DequantizeNf4(checkpoint, name, shape));
  } else {
    ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(name, shape));
    ABSTRACT_ASSIGN_OR_RETURN(host, ToHostTensor(view));
  }
  for (float value : host.values) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(checkpoint.directory(), ": tensor '", name, "' holds a value that is not finite"));
    }
  }
  at::Tensor tensor = at::empty(shape, at::kFloat);
  std::memcpy(tensor.data_ptr<float>(), host.values.data(), host.values.size() * sizeof(float));
  return tensor;
}

absl::StatusOr<LayerWeights> LoadLayer(const Checkpoint& checkpoint, int layer) {
  const ModelConfig& config = checkpoint.config();
  const int64_t d = config.d_model, f = config.d_ff, q = config.query_width(), kv = config.key_value_width();
  LayerWeights weights;
  struct Entry {
    at::Tensor& tensor;
    absl::string_view name;
    std::vector<int64_t> shape;
  };
  const Entry entries[] = {
      {weights.ln1_gain, "input_layernorm", {d}},
      {weights.query.weight, "self_attn.q_proj", {q, d}},
      {weights.key.weight, "self_attn.k_proj", {kv, d}},
      {weights.value.weight, "self_attn.v_proj", {kv, d}},
      {weights.output.weight, "self_attn.o_proj", {d, q}},
      {weights.ln2_gain, "post_attention_layernorm", {d}},
      {weights.gate.weight, "mlp.gate_proj", {f, d}},
      {weights.up.weight, "mlp.up_proj", {f, d}},
      {weights.down.weight, "mlp.down_proj", {d, f}},
  };
  for (const Entry& entry : entries) {
    const std::string name = absl::StrCat("model.layers.", layer, ".", entry.name, ".weight");
    ABSTRACT_ASSIGN_OR_RETURN(entry.tensor, LoadTensor(checkpoint, name, entry.shape));
  }
  return weights;
}

// Inverse frequencies of the rotary pairs (Su et al. 2021), with Llama 3.1's
// scaling where the config asks for it: long wavelengths are divided by the
// factor, short ones kept, those between interpolated. In fp32 like the
// reference implementation, whose angles round with them.
std::vector<float> InverseFrequencies(const ModelConfig& config, bool round_to_bfloat16) {
  const int half = config.head_size / 2;
  std::vector<float> frequencies(half);
  for (int i = 0; i < half; ++i) {
    const double exponent = 2.0 * i / config.head_size;
    double frequency = 1.0f / static_cast<float>(std::pow(config.rope_theta, exponent));
    if (config.rope_scaling) {
      const RopeScaling& rope = *config.rope_scaling;
      const double wavelength = 2 * std::numbers::pi / frequency;
      const double rotations = rope.original_context_length / wavelength;
      if (rotations < rope.low_freq_factor) {
        frequency /= rope.factor;
      } else if (rotations <= rope.high_freq_factor) {
        const double smooth =
            (rotations - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
      }
    }
    frequencies[i] = static_cast<float>(frequency);
    if (round_to_bfloat16) frequencies[i] = BFloat16ToFloat(FloatToBFloat16(frequencies[i]));
  }
  return frequencies;
}

void FillRotaryTables(const ModelConfig& config, const LoadOptions& options, ModelWeights& weights) {
  const std::vector<float> frequencies =
      InverseFrequencies(config, options.round_rope_frequencies_to_bfloat16);
  const auto half = static_cast<int64_t>(frequencies.size());
  weights.cosines = at::empty({config.context_length, half}, at::kFloat);
  weights.sines = at::empty({config.context_length, half}, at::kFloat);
  float* cosine = weights.cosines.data_ptr<float>();
  float* sine = weights.sines.data_ptr<float>();
  for (int position = 0; position < config.context_length; ++position) {
    for (float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      *cosine++ = static_cast<float>(std::cos(double{angle}));
      *sine++ = static_cast<float>(std::sin(double{angle}));
    }
  }
}

}  // namespace

at::Tensor LinearWeight::Apply(const at::Tensor& x) const {
  at::Tensor y = at::empty({x.size(0), out()}, at::kFloat);
  kernels::Linear(x.data_ptr<float>(), x.size(0), in(), weight.data_ptr<float>(), out(), y.data_ptr<float>());
  return y;
}

absl::StatusOr<ModelWeights> LoadWeights(const Checkpoint& checkpoint, const LoadOptions& options) {
  const ModelConfig& config = checkpoint.config();
  const int64_t v = config.vocabulary_size, d = config.d_model;
  ModelWeights weights;
  ABSTRACT_ASSIGN_OR_RETURN(weights.embedding, LoadTensor(checkpoint, "model.embed_tokens.weight", {v, d}));
  for (int layer = 0; layer < config.layer_count; ++layer) {
    ABSTRACT_ASSIGN_OR_RETURN(LayerWeights layer_weights, LoadLayer(checkpoint, layer));
    weights.layers.push_back(std::move(layer_weights));
  }
  ABSTRACT_ASSIGN_OR_RETURN(weights.ln_final_gain, LoadTensor(checkpoint, "model.norm.weight", {d}));
  if (config.tied_embeddings) {
    weights.unembedding.weight = weights.embedding;
  } else {
    ABSTRACT_ASSIGN_OR_RETURN(weights.unembedding.weight, LoadTensor(checkpoint, "lm_head.weight", {v, d}));
  }
  FillRotaryTables(config, options, weights);
  return weights;
}

int64_t CountParameters(const ModelWeights& weights) {
  int64_t count = weights.embedding.numel() + weights.ln_final_gain.numel();
  if (!weights.unembedding.weight.is_same(weights.embedding)) count += weights.unembedding.weight.numel();
  for (const LayerWeights& layer : weights.layers) {
    count += layer.ln1_gain.numel() + layer.ln2_gain.numel();
    for (const LinearWeight* linear :
         {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down}) {
      count += linear->in() * linear->out();
    }
  }
  return count;
}

}  // namespace mechinterp::engine
