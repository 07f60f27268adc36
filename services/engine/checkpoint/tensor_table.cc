#include "services/engine/checkpoint/tensor_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "services/engine/base/host_tensor.h"

namespace mechinterp::engine {
namespace {

enum class Size { kNone, kModel, kNeurons, kQueries, kKeysAndValues, kHead, kVocabulary };

struct Row {
  TensorRole role;
  TensorKind kind;
  const char* name;
  Size out;
  Size in = Size::kNone;
  bool LayerConfig::*present = nullptr;  // null: always
};

constexpr bool LayerConfig::*kAttentionBias = &LayerConfig::query_key_value_bias;
constexpr bool LayerConfig::*kOutputBias = &LayerConfig::attention_output_bias;
constexpr bool LayerConfig::*kMlpBias = &LayerConfig::mlp_bias;
constexpr bool LayerConfig::*kHeadNorm = &LayerConfig::query_key_norm;
using enum TensorKind;

// Names within "model.layers.N.".
constexpr Row kLayerRows[] = {
    {TensorRole::kLn1Gain, kGain, "input_layernorm.weight", Size::kModel},
    {TensorRole::kQuery, kLinear, "self_attn.q_proj.weight", Size::kQueries, Size::kModel},
    {TensorRole::kQueryBias, kBias, "self_attn.q_proj.bias", Size::kQueries, Size::kNone, kAttentionBias},
    {TensorRole::kKey, kLinear, "self_attn.k_proj.weight", Size::kKeysAndValues, Size::kModel},
    {TensorRole::kKeyBias, kBias, "self_attn.k_proj.bias", Size::kKeysAndValues, Size::kNone, kAttentionBias},
    {TensorRole::kValue, kLinear, "self_attn.v_proj.weight", Size::kKeysAndValues, Size::kModel},
    {TensorRole::kValueBias, kBias, "self_attn.v_proj.bias", Size::kKeysAndValues, Size::kNone,
     kAttentionBias},
    {TensorRole::kQueryNormGain, kGain, "self_attn.q_norm.weight", Size::kHead, Size::kNone, kHeadNorm},
    {TensorRole::kKeyNormGain, kGain, "self_attn.k_norm.weight", Size::kHead, Size::kNone, kHeadNorm},
    {TensorRole::kOutput, kLinear, "self_attn.o_proj.weight", Size::kModel, Size::kQueries},
    {TensorRole::kOutputBias, kBias, "self_attn.o_proj.bias", Size::kModel, Size::kNone, kOutputBias},
    {TensorRole::kLn2Gain, kGain, "post_attention_layernorm.weight", Size::kModel},
    {TensorRole::kGate, kLinear, "mlp.gate_proj.weight", Size::kNeurons, Size::kModel},
    {TensorRole::kGateBias, kBias, "mlp.gate_proj.bias", Size::kNeurons, Size::kNone, kMlpBias},
    {TensorRole::kUp, kLinear, "mlp.up_proj.weight", Size::kNeurons, Size::kModel},
    {TensorRole::kUpBias, kBias, "mlp.up_proj.bias", Size::kNeurons, Size::kNone, kMlpBias},
    {TensorRole::kDown, kLinear, "mlp.down_proj.weight", Size::kModel, Size::kNeurons},
    {TensorRole::kDownBias, kBias, "mlp.down_proj.bias", Size::kModel, Size::kNone, kMlpBias},
};

constexpr Row kModelRows[] = {
    {TensorRole::kEmbedding, kEmbedding, "model.embed_tokens.weight", Size::kVocabulary, Size::kModel},
    {TensorRole::kLnFinalGain, kGain, "model.norm.weight", Size::kModel},
    {TensorRole::kUnembedding, kUnembedding, "lm_head.weight", Size::kVocabulary, Size::kModel},
};

int64_t SizeOf(Size size, const ModelConfig& config) {
  switch (size) {
    case Size::kModel:
      return config.d_model;
    case Size::kNeurons:
      return config.d_ff;
    case Size::kQueries:
      return config.query_width();
    case Size::kKeysAndValues:
      return config.key_value_width();
    case Size::kHead:
      return config.head_size;
    case Size::kVocabulary:
      return config.vocabulary_size;
    case Size::kNone:
      break;
  }
  return 1;
}

TensorInfo Describe(const Row& row, const ModelConfig& config, int layer) {
  TensorInfo info{row.role, row.kind, layer, row.name, {SizeOf(row.out, config)}, false};
  if (layer >= 0) info.name = absl::StrCat("model.layers.", layer, ".", row.name);
  if (row.in != Size::kNone) info.shape.push_back(SizeOf(row.in, config));
  info.optional = row.role == TensorRole::kUnembedding && config.tied_embeddings;
  return info;
}

}  // namespace

int64_t TensorInfo::count() const { return ElementCount(shape); }

std::vector<TensorInfo> LayerTensors(const ModelConfig& config, int layer) {
  std::vector<TensorInfo> tensors;
  for (const Row& row : kLayerRows) {
    if (row.present != nullptr && !(config.layers[layer].*row.present)) continue;
    tensors.push_back(Describe(row, config, layer));
  }
  return tensors;
}

TensorInfo TensorOf(const ModelConfig& config, TensorRole role) {
  for (const Row& row : kModelRows) {
    if (row.role == role) return Describe(row, config, -1);
  }
  return {};
}

std::vector<TensorInfo> ModelTensors(const ModelConfig& config) {
  std::vector<TensorInfo> tensors = {TensorOf(config, TensorRole::kEmbedding)};
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (TensorInfo& info : LayerTensors(config, layer)) tensors.push_back(std::move(info));
  }
  tensors.push_back(TensorOf(config, TensorRole::kLnFinalGain));
  tensors.push_back(TensorOf(config, TensorRole::kUnembedding));
  return tensors;
}

TensorInfo HeadTensor(const ModelConfig& config) {
  return TensorOf(config, config.tied_embeddings ? TensorRole::kEmbedding : TensorRole::kUnembedding);
}

int64_t CountParameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const TensorInfo& info : ModelTensors(config)) {
    if (!info.optional) count += info.count();
  }
  return count;
}

}  // namespace mechinterp::engine
