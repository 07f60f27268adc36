#include "services/engine/weights/weights.h"

#include <ATen/ops/empty.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/float16.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/device/transfer.h"
#include "services/engine/weights/device_matrix.h"

namespace mechinterp::engine {
namespace {

using kernels::WeightFormat;

constexpr char kEmbedding[] = "model.embed_tokens.weight";

// Every matrix of a block: where it stands, its name and its size.
struct LinearEntry {
  LinearWeight LayerWeights::*member;
  absl::string_view name;
  int64_t out;
  int64_t in;
};
std::vector<LinearEntry> LinearEntries(const ModelConfig& config) {
  const int64_t d = config.d_model, f = config.d_ff, q = config.query_width(), kv = config.key_value_width();
  return {
      {&LayerWeights::query, "self_attn.q_proj", q, d},  {&LayerWeights::key, "self_attn.k_proj", kv, d},
      {&LayerWeights::value, "self_attn.v_proj", kv, d}, {&LayerWeights::output, "self_attn.o_proj", d, q},
      {&LayerWeights::gate, "mlp.gate_proj", f, d},      {&LayerWeights::up, "mlp.up_proj", f, d},
      {&LayerWeights::down, "mlp.down_proj", d, f},
  };
}

std::string LayerName(int layer, absl::string_view part) {
  return absl::StrCat("model.layers.", layer, ".", part, ".weight");
}

const char* HeadName(const ModelConfig& config) {
  return config.tied_embeddings ? kEmbedding : "lm_head.weight";
}

// The type a matrix is stored in, or was before it was quantized; fp32 where the
// tensor is missing or unreadable, which loading it will report.
DType StoredType(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView* view = checkpoint.Find(name);
  if (view == nullptr) return DType::kF32;
  return IsNf4(checkpoint, name) ? Nf4StoredType(checkpoint, name) : view->dtype;
}

MatrixFormat LinearFormat(const Checkpoint& checkpoint, const std::string& name,
                          const WeightFormats& formats) {
  const WeightFormat format =
      formats.quantization == Quantization::kNf4
          ? WeightFormat::kNf4
          : UnquantizedFormat(StoredType(checkpoint, name), formats.compute_type, formats.device);
  return {format, formats.compute_type, formats.double_quantization, formats.device};
}

MatrixFormat HeadFormat(const Checkpoint& checkpoint, const WeightFormats& formats) {
  MatrixFormat format{WeightFormat::kInt8, formats.compute_type, formats.double_quantization, formats.device};
  if (formats.head == HeadQuantization::kNf4) format.format = WeightFormat::kNf4;
  if (formats.head == HeadQuantization::kNone) {
    format.format = UnquantizedFormat(StoredType(checkpoint, HeadName(checkpoint.config())),
                                      formats.compute_type, formats.device);
  }
  return format;
}

absl::Status NotFinite(const Checkpoint& checkpoint, absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(checkpoint.directory(), ": tensor '", name, "' holds a value that is not finite"));
}

absl::StatusOr<at::Tensor> LoadGain(const Checkpoint& checkpoint, const std::string& name,
                                    const Device& device) {
  const int64_t d = checkpoint.config().d_model;
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(name, {d}));
  at::Tensor gain = at::empty({d}, at::kFloat);
  if (!StoredValues(view).Read(0, d, gain.data_ptr<float>())) return NotFinite(checkpoint, name);
  return ToDevice(gain, TorchDevice(device));
}

absl::StatusOr<EmbeddingTable> OpenEmbedding(const Checkpoint& checkpoint) {
  const int64_t v = checkpoint.config().vocabulary_size, d = checkpoint.config().d_model;
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(kEmbedding, {v, d}));
  const StoredValues values(view);
  std::vector<float> row(d);
  for (int64_t i = 0; i < v; ++i) {
    if (!values.Read(i * d, d, row.data())) return NotFinite(checkpoint, kEmbedding);
  }
  ReleasePages(view);
  return EmbeddingTable(view, d);
}

absl::StatusOr<LayerWeights> LoadLayer(const Checkpoint& checkpoint, int layer,
                                       const WeightFormats& formats) {
  LayerWeights weights;
  ABSTRACT_ASSIGN_OR_RETURN(weights.ln1_gain,
                            LoadGain(checkpoint, LayerName(layer, "input_layernorm"), formats.device));
  ABSTRACT_ASSIGN_OR_RETURN(
      weights.ln2_gain, LoadGain(checkpoint, LayerName(layer, "post_attention_layernorm"), formats.device));
  for (const LinearEntry& entry : LinearEntries(checkpoint.config())) {
    const std::string name = LayerName(layer, entry.name);
    ABSTRACT_ASSIGN_OR_RETURN(weights.*entry.member, LoadLinear(checkpoint, name, entry.out, entry.in,
                                                                LinearFormat(checkpoint, name, formats)));
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

// Gains of the norms, which stay in fp32.
int64_t GainBytes(const ModelConfig& config) {
  return (int64_t{2} * config.layer_count + 1) * config.d_model * static_cast<int64_t>(sizeof(float));
}

// In the order that a forward pass multiplies them (forward.cc); of those that it
// multiplies together, the last tells.
void TellWhatComesNext(ModelWeights& weights) {
  auto follow = [](LinearWeight& weight, const LinearWeight& next) {
    weight.matrix.next = {next.matrix.data.data(), next.matrix.bytes()};
  };
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    const bool last = i + 1 == weights.layers.size();
    follow(layer.value, layer.output);
    follow(layer.output, layer.gate);
    follow(layer.up, layer.down);
    follow(layer.down, last ? weights.unembedding : weights.layers[i + 1].query);
  }
  follow(weights.unembedding, weights.layers[0].query);
}

absl::Status LoadSelected(const WeightSelection& selection, const WeightFormats& formats,
                          ModelWeights& weights) {
  const Checkpoint& source = weights.checkpoint;
  const ModelConfig& config = source.config();
  for (int layer : selection.layers) {
    ABSTRACT_ASSIGN_OR_RETURN(LayerWeights layer_weights, LoadLayer(source, layer, formats));
    weights.layers.push_back(std::move(layer_weights));
  }
  if (!selection.with_head) return absl::OkStatus();
  ABSTRACT_ASSIGN_OR_RETURN(weights.ln_final_gain, LoadGain(source, "model.norm.weight", formats.device));
  ABSTRACT_ASSIGN_OR_RETURN(weights.unembedding, LoadLinear(source, HeadName(config), config.vocabulary_size,
                                                            config.d_model, HeadFormat(source, formats)));
  return absl::OkStatus();
}

// What a device multiplies best beside fp32. Apple's GPUs have bf16 natively only since
// the M3, fp16 all of them.
ComputeType FastType(const Device& device) {
  switch (device.kind) {
    case DeviceKind::kMps:
      return ComputeType::kFloat16;
    case DeviceKind::kCuda:
      return ComputeType::kBFloat16;
    case DeviceKind::kCpu:
      break;
  }
  const bool native = kernels::MultipliesBFloat16() && !device.UsesLibtorch();
  return native ? ComputeType::kBFloat16 : ComputeType::kFloat32;
}

}  // namespace

WeightFormats ResolveFormats(const LoadOptions& options, bool stored_as_nf4) {
  WeightFormats formats;
  formats.device = options.device;
  formats.quantization =
      options.quantization.value_or(stored_as_nf4 ? Quantization::kNf4 : Quantization::kNone);
  const bool nf4 = formats.quantization == Quantization::kNf4;
  formats.double_quantization = options.double_quantization;
  formats.head = options.head.value_or(nf4 ? HeadQuantization::kInt8 : HeadQuantization::kNone);
  formats.compute_type =
      options.compute_type.value_or(nf4 ? FastType(options.device) : ComputeType::kFloat32);
  return formats;
}

std::vector<NamedMatrix> LinearMatrices(const ModelConfig& config) {
  std::vector<NamedMatrix> matrices;
  for (int layer = 0; layer < config.layer_count; ++layer) {
    for (const LinearEntry& entry : LinearEntries(config)) {
      matrices.push_back({LayerName(layer, entry.name), entry.out, entry.in});
    }
  }
  return matrices;
}

bool StoredAsNf4(const Checkpoint& checkpoint) {
  return IsNf4(checkpoint, LayerName(0, LinearEntries(checkpoint.config()).front().name));
}

absl::StatusOr<ModelWeights> LoadWeights(Checkpoint checkpoint, const WeightFormats& formats,
                                         bool round_rope_frequencies_to_bfloat16) {
  ABSTRACT_ASSIGN_OR_RETURN(const EmbeddingTable embedding, OpenEmbedding(checkpoint));
  ModelWeights weights{std::move(checkpoint), embedding, {}, {}, {}, {}};
  const ModelConfig& config = weights.checkpoint.config();
  WeightSelection all;
  all.layers.resize(config.layer_count);
  std::iota(all.layers.begin(), all.layers.end(), 0);
  ABSTRACT_RETURN_IF_ERROR(LoadSelected(all, formats, weights));
  weights.rotary_frequencies = InverseFrequencies(config, round_rope_frequencies_to_bfloat16);
  TellWhatComesNext(weights);
  return weights;
}

absl::StatusOr<ModelWeights> ReloadWeights(const ModelWeights& whole, const WeightFormats& formats,
                                           const WeightSelection& selection) {
  ABSTRACT_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(whole.checkpoint.directory()));
  ModelWeights weights{std::move(checkpoint), whole.embedding, {}, {}, {}, whole.rotary_frequencies};
  WeightFormats on_cpu = formats;
  on_cpu.device = {};
  ABSTRACT_RETURN_IF_ERROR(LoadSelected(selection, on_cpu, weights));
  return weights;
}

WeightBytes EstimateWeightBytes(const Checkpoint& checkpoint, const WeightFormats& formats) {
  const ModelConfig& config = checkpoint.config();
  WeightBytes bytes;
  for (const LinearEntry& entry : LinearEntries(config)) {
    const MatrixFormat format = LinearFormat(checkpoint, LayerName(0, entry.name), formats);
    bytes[HeldFormat(entry.in, format)] += config.layer_count * HeldBytes(entry.out, entry.in, format);
  }
  const MatrixFormat head = HeadFormat(checkpoint, formats);
  bytes[HeldFormat(config.d_model, head)] += HeldBytes(config.vocabulary_size, config.d_model, head);
  bytes[WeightFormat::kFloat32] += GainBytes(config);
  return bytes;
}

WeightBytes CountWeightBytes(const ModelWeights& weights) {
  const ModelConfig& config = weights.checkpoint.config();
  WeightBytes bytes;
  auto add = [&](const LinearWeight& weight) { bytes[weight.matrix.format] += weight.bytes(); };
  for (const LayerWeights& layer : weights.layers) {
    for (const LinearEntry& entry : LinearEntries(config)) add(layer.*entry.member);
  }
  add(weights.unembedding);
  bytes[WeightFormat::kFloat32] += GainBytes(config);
  return bytes;
}

int64_t CountParameters(const ModelConfig& config) {
  const int64_t embedding = int64_t{config.vocabulary_size} * config.d_model;
  int64_t count = embedding * (config.tied_embeddings ? 1 : 2) + config.d_model;
  int64_t layer = int64_t{2} * config.d_model;
  for (const LinearEntry& entry : LinearEntries(config)) layer += entry.out * entry.in;
  return count + config.layer_count * layer;
}

}  // namespace mechinterp::engine
