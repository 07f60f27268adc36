#include "services/engine/weights/weights.h"

#include <ATen/ops/empty.h>

#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/device/transfer.h"
#include "services/engine/weights/device_matrix.h"

namespace mechinterp::engine {
namespace {

// A block's matrix that a tensor is part of; null for gains.
LinearWeight LayerWeights::*LinearOf(TensorRole role) {
  switch (role) {
    case TensorRole::kQuery:
    case TensorRole::kQueryBias:
      return &LayerWeights::query;
    case TensorRole::kKey:
    case TensorRole::kKeyBias:
      return &LayerWeights::key;
    case TensorRole::kValue:
    case TensorRole::kValueBias:
      return &LayerWeights::value;
    case TensorRole::kOutput:
    case TensorRole::kOutputBias:
      return &LayerWeights::output;
    case TensorRole::kGate:
    case TensorRole::kGateBias:
      return &LayerWeights::gate;
    case TensorRole::kUp:
    case TensorRole::kUpBias:
      return &LayerWeights::up;
    case TensorRole::kDown:
    case TensorRole::kDownBias:
      return &LayerWeights::down;
    default:
      return nullptr;
  }
}

at::Tensor& GainOf(LayerWeights& weights, TensorRole role) {
  switch (role) {
    case TensorRole::kQueryNormGain:
      return weights.query_norm_gain;
    case TensorRole::kKeyNormGain:
      return weights.key_norm_gain;
    case TensorRole::kLn2Gain:
      return weights.ln2_gain;
    default:
      return weights.ln1_gain;
  }
}

// The type a matrix is stored in, or was before it was quantized; fp32 where the
// tensor is missing or unreadable, which loading it will report.
NumberFormat StoredType(const Checkpoint& checkpoint, const std::string& name) {
  const TensorView* view = checkpoint.Find(name);
  if (view == nullptr) return NumberFormat::kFloat32;
  return IsNf4(checkpoint, name) ? Nf4StoredType(checkpoint, name) : view->dtype;
}

// How a linear layer or the head is to be held.
MatrixFormat FormatOf(const Checkpoint& checkpoint, const TensorInfo& tensor, const WeightFormats& formats) {
  const bool linear = tensor.kind == TensorKind::kLinear;
  Quantization quantization = linear ? formats.quantization : formats.head;
  if (linear && formats.quantization_as_stored && !IsNf4(checkpoint, tensor.name))
    quantization = kUnquantized;
  const NumberFormat unquantized =
      UnquantizedFormat(StoredType(checkpoint, tensor.name), formats.compute_type, formats.device);
  MatrixFormat format{quantization.value_or(unquantized), formats.compute_type, formats.double_quantization,
                      formats.device};
  if (format.format == NumberFormat::kNf4 && formats.dequantize_nf4) {
    format.format = unquantized;
    format.through_nf4 = true;
  }
  return format;
}

absl::Status NotFinite(const Checkpoint& checkpoint, absl::string_view name) {
  return absl::InvalidArgumentError(
      absl::StrCat(checkpoint.directory(), ": tensor '", name, "' holds a value that is not finite"));
}

// A gain or a bias, in fp32, on the device.
absl::StatusOr<at::Tensor> LoadVector(const Checkpoint& checkpoint, const TensorInfo& tensor,
                                      const Device& device) {
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(tensor.name, tensor.shape));
  at::Tensor values = at::empty({tensor.count()}, at::kFloat);
  if (!StoredValues(view).Read(0, tensor.count(), values.data_ptr<float>())) {
    return NotFinite(checkpoint, tensor.name);
  }
  return ToDevice(values, TorchDevice(device));
}

absl::StatusOr<LinearWeight> LoadMatrix(const Checkpoint& checkpoint, const TensorInfo& tensor,
                                        const WeightFormats& formats) {
  return LoadLinear(checkpoint, tensor.name, tensor.shape[0], tensor.shape[1],
                    FormatOf(checkpoint, tensor, formats));
}

absl::StatusOr<EmbeddingTable> OpenEmbedding(const Checkpoint& checkpoint) {
  const TensorInfo tensor = TensorOf(checkpoint.config(), TensorRole::kEmbedding);
  const int64_t v = tensor.shape[0], d = tensor.shape[1];
  ABSTRACT_ASSIGN_OR_RETURN(const TensorView view, checkpoint.Tensor(tensor.name, tensor.shape));
  const StoredValues values(view);
  std::vector<float> row(d);
  for (int64_t i = 0; i < v; ++i) {
    if (!values.Read(i * d, d, row.data())) return NotFinite(checkpoint, tensor.name);
  }
  ReleasePages(view);
  return EmbeddingTable(view, d);
}

absl::StatusOr<LayerWeights> LoadLayer(const Checkpoint& checkpoint, int layer,
                                       const WeightFormats& formats) {
  LayerWeights weights;
  for (const TensorInfo& tensor : LayerTensors(checkpoint.config(), layer)) {
    if (tensor.kind == TensorKind::kLinear) {
      ABSTRACT_ASSIGN_OR_RETURN(weights.*LinearOf(tensor.role), LoadMatrix(checkpoint, tensor, formats));
      continue;
    }
    // A matrix's bias comes after it.
    at::Tensor& vector = tensor.kind == TensorKind::kBias ? (weights.*LinearOf(tensor.role)).bias
                                                          : GainOf(weights, tensor.role);
    ABSTRACT_ASSIGN_OR_RETURN(vector, LoadVector(checkpoint, tensor, formats.device));
  }
  return weights;
}

// Gains and biases, which stay in fp32.
int64_t VectorBytes(const ModelConfig& config) {
  int64_t count = 0;
  for (const TensorInfo& tensor : ModelTensors(config)) {
    if (tensor.kind == TensorKind::kGain || tensor.kind == TensorKind::kBias) count += tensor.count();
  }
  return count * static_cast<int64_t>(sizeof(float));
}

// In the order that a forward pass multiplies them (forward.cc); of those that it
// multiplies together, the last tells.
void LinkPrefetchOrder(ModelWeights& weights) {
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
  ABSTRACT_ASSIGN_OR_RETURN(weights.ln_final_gain,
                            LoadVector(source, TensorOf(config, TensorRole::kLnFinalGain), formats.device));
  ABSTRACT_ASSIGN_OR_RETURN(weights.unembedding, LoadMatrix(source, HeadTensor(config), formats));
  return absl::OkStatus();
}

}  // namespace

StoredNf4 FindStoredNf4(const Checkpoint& checkpoint) {
  StoredNf4 stored;
  for (const TensorInfo& tensor : ModelTensors(checkpoint.config())) {
    if (tensor.kind == TensorKind::kLinear && IsNf4(checkpoint, tensor.name)) stored.linear = true;
  }
  stored.head = IsNf4(checkpoint, HeadTensor(checkpoint.config()).name);
  return stored;
}

absl::StatusOr<ModelWeights> LoadWeights(Checkpoint checkpoint, const WeightFormats& formats,
                                         bool round_rope_frequencies_to_bfloat16) {
  ABSTRACT_ASSIGN_OR_RETURN(const EmbeddingTable embedding, OpenEmbedding(checkpoint));
  ModelWeights weights{std::move(checkpoint), embedding, {}, {}, {}, {}};
  const ModelConfig& config = weights.checkpoint.config();
  WeightSelection all;
  all.layers.resize(config.layer_count());
  std::iota(all.layers.begin(), all.layers.end(), 0);
  ABSTRACT_RETURN_IF_ERROR(LoadSelected(all, formats, weights));
  weights.rotary_frequencies = RotaryFrequencies(config, round_rope_frequencies_to_bfloat16);
  LinkPrefetchOrder(weights);
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
  auto add = [&](const TensorInfo& tensor) {
    const MatrixFormat format = FormatOf(checkpoint, tensor, formats);
    bytes[HeldFormat(tensor.shape[1], format)] += HeldBytes(tensor.shape[0], tensor.shape[1], format);
  };
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (const TensorInfo& tensor : LayerTensors(config, layer)) {
      if (tensor.kind == TensorKind::kLinear) add(tensor);
    }
  }
  add(HeadTensor(config));
  bytes[NumberFormat::kFloat32] += VectorBytes(config);
  return bytes;
}

WeightBytes CountWeightBytes(const ModelWeights& weights) {
  const ModelConfig& config = weights.checkpoint.config();
  WeightBytes bytes;
  auto add = [&](const LinearWeight& weight) { bytes[weight.matrix.format] += weight.bytes(); };
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (const TensorInfo& tensor : LayerTensors(config, layer)) {
      if (tensor.kind == TensorKind::kLinear) add(weights.layers[layer].*LinearOf(tensor.role));
    }
  }
  add(weights.unembedding);
  bytes[NumberFormat::kFloat32] += VectorBytes(config);
  return bytes;
}

}  // namespace mechinterp::engine
