#include "tests/fuzz/tiny_model.h"

#include <filesystem>
#include <string>
#include <vector>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/checkpoint/safetensors_writer.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/tiny_tokenizer.h"

namespace mechinterp::fuzz {
namespace {

constexpr char kConfig[] = R"({
  "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
  "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": 261,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "hidden_act": "silu", "eos_token_id": 257})";

constexpr char kChatFormat[] = R"({
  "begin": "<s>", "tokens": ["<s>", "<|end|>"],
  "system": {"before": "", "after": "<|end|>"},
  "user": {"before": "<|user|>", "after": "<|end|>"},
  "assistant": {"before": "<|bot|>", "after": "<|end|>"}, "opening": "<|bot|>"})";

// Values of many sizes, the same each time.
std::vector<float> Values(int64_t count, int seed) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>((i * 7 + seed * 3) % 23 - 11) / 16);
  return values;
}

void WriteWeights(const std::string& path) {
  const auto config = engine::ParseModelConfig(kConfig, "config.json");
  RequireOk(config.status(), "the tiny model's configuration");
  const std::vector<engine::TensorInfo> tensors = engine::ModelTensors(*config);
  std::vector<std::vector<float>> values;
  std::vector<engine::TensorToWrite> written;
  for (const engine::TensorInfo& tensor : tensors) {
    values.push_back(Values(tensor.count(), static_cast<int>(values.size())));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    written.push_back({tensors[i].name, engine::NumberFormat::kFloat32, tensors[i].shape, values[i]});
  }
  RequireOk(engine::WriteSafetensors(path, written), "the tiny model's weights");
}

}  // namespace

const std::shared_ptr<const engine::Model>& TinyModel() {
  static const auto& model = *[] {
    std::filesystem::create_directory(ScratchPath("tiny_model"));
    ScratchFile("tiny_model/config.json", kConfig);
    ScratchFile("tiny_model/tokenizer.json", TinyTokenizerJson());
    WriteWeights(ScratchPath("tiny_model/model.safetensors"));
    engine::LoadOptions options;
    options.chat_template = ScratchFile("tiny_model/chat_format.json", kChatFormat);
    auto loaded = engine::Model::Load(ScratchPath("tiny_model"), options);
    RequireOk(loaded.status(), "the tiny model");
    return new std::shared_ptr<const engine::Model>(*std::move(loaded));
  }();
  return model;
}

}  // namespace mechinterp::fuzz
