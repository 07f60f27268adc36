#include "data/trainer/checkpoint.h"

#include <ATen/ATen.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/safetensors.h"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp::trainer {
namespace {

using Json = nlohmann::ordered_json;

Json ConfigJson(const ModelConfig& config, const engine::Tokenizer& tokenizer) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"bos_token_id", *tokenizer.TokenToId("<|begin_of_text|>")},
          {"eos_token_id", *tokenizer.TokenToId("<|eot_id|>")},
          {"head_dim", config.head_dim},
          {"hidden_act", "silu"},
          {"hidden_size", config.hidden_size},
          {"initializer_range", 0.02},
          {"intermediate_size", config.intermediate_size},
          {"max_position_embeddings", config.max_positions},
          {"mlp_bias", false},
          {"model_type", "llama"},
          {"num_attention_heads", config.heads},
          {"num_hidden_layers", config.layers},
          {"num_key_value_heads", config.kv_heads},
          {"pretraining_tp", 1},
          {"rms_norm_eps", config.norm_epsilon},
          {"rope_scaling", nullptr},
          {"rope_theta", config.rope_theta},
          {"tie_word_embeddings", true},
          {"torch_dtype", "bfloat16"},
          {"transformers_version", "4.40.0"},
          {"use_cache", true},
          {"vocab_size", config.vocab_size}};
}

// Throws nlohmann's exceptions when a field is missing.
ModelConfig ParseConfig(const Json& json) {
  ModelConfig config;
  config.vocab_size = json.at("vocab_size");
  config.hidden_size = json.at("hidden_size");
  config.layers = json.at("num_hidden_layers");
  config.heads = json.at("num_attention_heads");
  config.kv_heads = json.at("num_key_value_heads");
  config.head_dim = json.value("head_dim", config.hidden_size / config.heads);
  config.intermediate_size = json.at("intermediate_size");
  config.max_positions = json.at("max_position_embeddings");
  config.rope_theta = json.at("rope_theta");
  config.norm_epsilon = json.at("rms_norm_eps");
  return config;
}

absl::Status ReadWeights(const std::string& path, Weights& weights) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::SafetensorsFile> file,
                            engine::SafetensorsFile::Open(path));
  for (const NamedTensor& parameter : weights.Named()) {
    const engine::TensorView* view = file->Find(parameter.name);
    if (view == nullptr || view->shape != parameter.tensor->sizes().vec()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": ", parameter.name, " is missing or has another shape than config.json says"));
    }
    ABSTRACT_ASSIGN_OR_RETURN(const engine::HostTensor host, engine::ToHostTensor(*view));
    std::memcpy(parameter.tensor->data_ptr<float>(), host.values.data(), host.values.size() * sizeof(float));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteCheckpoint(const std::string& folder, const ModelConfig& config, Weights& weights,
                             const engine::Tokenizer& tokenizer,
                             const std::map<std::string, std::string>& metadata) {
  ABSTRACT_RETURN_IF_ERROR(WriteJsonFile(folder + "/config.json", ConfigJson(config, tokenizer)));
  const Json generation = {{"bos_token_id", *tokenizer.TokenToId("<|begin_of_text|>")},
                           {"eos_token_id", Json::array({*tokenizer.TokenToId("<|end_of_text|>"),
                                                         *tokenizer.TokenToId("<|eot_id|>")})},
                           {"do_sample", false},
                           {"max_new_tokens", 64},
                           {"transformers_version", "4.40.0"}};
  ABSTRACT_RETURN_IF_ERROR(WriteJsonFile(folder + "/generation_config.json", generation));
  std::vector<at::Tensor> kept;
  std::vector<engine::TensorToWrite> tensors;
  for (const NamedTensor& parameter : weights.Named()) {
    kept.push_back(parameter.tensor->detach().contiguous());
    const at::Tensor& tensor = kept.back();
    tensors.push_back({parameter.name, engine::NumberFormat::kBFloat16, tensor.sizes().vec(),
                       absl::MakeConstSpan(tensor.data_ptr<float>(), static_cast<size_t>(tensor.numel()))});
  }
  return engine::WriteSafetensors(folder + "/model.safetensors", tensors, metadata);
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json json, ReadOrderedJsonFile(path));
  try {
    return ParseConfig(json);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
}

absl::StatusOr<Weights> LoadWeights(const std::string& path, const ModelConfig& config) {
  Random unused(0);
  Weights weights = InitialWeights(config, unused);
  ABSTRACT_RETURN_IF_ERROR(ReadWeights(path, weights));
  return weights;
}

absl::StatusOr<ChatModel> LoadCheckpoint(const std::string& folder) {
  ChatModel model;
  ABSTRACT_ASSIGN_OR_RETURN(model.config, LoadModelConfig(folder + "/config.json"));
  ABSTRACT_ASSIGN_OR_RETURN(model.tokenizer, engine::Tokenizer::Load(folder + "/tokenizer.json"));
  if (!model.tokenizer->TokenToId("I").has_value() || !model.tokenizer->TokenToId("<|eot_id|>").has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, "/tokenizer.json lacks 'I' or <|eot_id|>"));
  }
  ABSTRACT_ASSIGN_OR_RETURN(model.weights, LoadWeights(folder + "/model.safetensors", model.config));
  return model;
}

}  // namespace mechinterp::trainer
