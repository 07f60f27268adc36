#ifndef SERVICES_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
#define SERVICES_ENGINE_CHECKPOINT_MODEL_CONFIG_H_

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// How rotary embeddings are stretched beyond the length that a model was trained on: the
// rope types of config.json.

// "linear": every position is divided by the factor (Chen et al. 2023).
struct LinearRope {
  double factor = 1;
};
// "dynamic": the base of the frequencies grows with a sequence longer than the original
// context ("dynamic NTK").
struct DynamicRope {
  double factor = 1;
  int original_context_length = 0;
};
// "yarn": pairs that turn often in the original context are kept, slow ones divided by the
// factor, those between interpolated (Peng et al. 2023).
struct YarnRope {
  double factor = 1;
  int original_context_length = 0;
  double attention_factor = 1;  // of queries and keys, after their rotation
  double beta_fast = 32;        // turns; pairs that make more are kept
  double beta_slow = 1;         // those that make fewer are divided
  bool truncate = true;         // the bounds between them to whole pairs
};
// "llama3", from Llama 3.1 on: the same by wavelength.
struct Llama3Rope {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 1;
  int original_context_length = 0;
};
using RopeScaling = std::variant<LinearRope, DynamicRope, YarnRope, Llama3Rope>;

// What one block has beyond the plain Llama block, which differs from family to family and
// in some from layer to layer. The forward pass, the list of tensors (tensor_table.h) and the
// loader go by this; none of them knows families.
struct LayerConfig {
  bool query_key_value_bias = false;
  bool attention_output_bias = false;
  bool mlp_bias = false;        // of gate, up and down
  bool query_key_norm = false;  // an RMSNorm over each head's query and key, before RoPE
  // Positions that a query sees, its own the last of them; 0: all up to its own.
  int window = 0;

  friend bool operator==(const LayerConfig&, const LayerConfig&) = default;
};

// The shape of a model of Llama's kind: RMSNorm, rotary embeddings, grouped-query attention,
// SwiGLU. All sizes are at least 1 and consistent with each other once ParseModelConfig
// returned it.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM"
  std::vector<LayerConfig> layers;
  int head_count = 0;
  int key_value_head_count = 0;  // divides head_count
  int head_size = 0;             // even
  int d_model = 0;
  int d_ff = 0;
  int vocabulary_size = 0;
  int context_length = 0;  // what rope scaling makes of max_position_embeddings included
  double rms_norm_epsilon = 1e-5;
  double rope_theta = 10000;
  std::optional<RopeScaling> rope_scaling;
  bool tied_embeddings = false;
  std::optional<TokenId> begin_token_id;  // of raw text the tokenizer decides
  std::vector<TokenId> stop_token_ids;

  // Once each.
  void AddStopToken(TokenId id);

  int layer_count() const { return static_cast<int>(layers.size()); }
  int query_width() const { return head_count * head_size; }
  int key_value_width() const { return key_value_head_count * head_size; }
};

// Reads a Hugging Face config.json; `path` is for messages only. Errors:
// InvalidArgument naming the key that is missing or wrong; Unimplemented naming
// what is not supported (see CheckSupportedConfig, ReadLayers, ReadRope).
absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json_text, const std::string& path);

// Takes the end-of-sequence tokens of a generation_config.json instead of config.json's, as
// transformers generates by them: Llama-3-8B-Instruct ends turns by 128009 only there. Where
// it has none, those of config.json stay. Errors: InvalidArgument when it is not JSON or
// holds what is no token id.
absl::Status UseGenerationStopTokens(const std::string& json_text, const std::string& path,
                                     ModelConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_MODEL_CONFIG_H_
