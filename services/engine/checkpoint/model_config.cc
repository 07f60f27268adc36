#include "services/engine/checkpoint/model_config.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/engine/base/bounded_json.h"
#include "services/engine/checkpoint/config_reader.h"
#include "services/engine/checkpoint/model_family.h"
#include "services/engine/checkpoint/supported_config.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Of any one size, so that sums of two stay in range.
constexpr int64_t kMaxSize = 1 << 30;

// Rope settings stand at the top level (rope_theta, rope_scaling) or, as newer
// transformers write them, together in rope_parameters.
absl::Status ReadRope(const ConfigReader& reader, const std::string& path, ModelConfig& config) {
  const bool joined = reader.Has("rope_parameters");
  const char* key = joined ? "rope_parameters" : "rope_scaling";
  ABSTRACT_ASSIGN_OR_RETURN(config.rope_theta, reader.Number("rope_theta", 10000));
  if (!reader.Has(key)) return absl::OkStatus();
  if (!reader[key].is_object()) return reader.Bad(key, "must be an object");
  const ConfigReader scaling(reader[key], path);
  if (joined) {
    ABSTRACT_ASSIGN_OR_RETURN(config.rope_theta, scaling.Number("rope_theta", config.rope_theta));
    ABSTRACT_RETURN_IF_ERROR(CheckRotaryConfig(scaling));
  }
  const char* type_key = scaling.Has("rope_type") ? "rope_type" : "type";
  const json type = scaling.Has(type_key) ? scaling[type_key] : json("default");
  if (type == "default") return absl::OkStatus();
  if (type != "llama3") {
    return reader.NotSupported(
        absl::StrCat("rope type ", type.dump(), " (other than \"default\" and \"llama3\")"));
  }
  RopeScaling rope;
  ABSTRACT_ASSIGN_OR_RETURN(rope.factor, scaling.Number("factor", 8));
  ABSTRACT_ASSIGN_OR_RETURN(rope.low_freq_factor, scaling.Number("low_freq_factor", 1));
  ABSTRACT_ASSIGN_OR_RETURN(rope.high_freq_factor, scaling.Number("high_freq_factor", 4));
  ABSTRACT_ASSIGN_OR_RETURN(rope.original_context_length, scaling.Size("original_max_position_embeddings"));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return scaling.Bad("high_freq_factor", "must be larger than low_freq_factor");
  }
  config.rope_scaling = rope;
  return absl::OkStatus();
}

// One token id, or (for end of sequence) a list of them.
absl::StatusOr<std::vector<TokenId>> ReadTokenIds(const ConfigReader& reader, const char* key,
                                                  int vocabulary_size) {
  std::vector<TokenId> ids;
  if (!reader.Has(key)) return ids;
  const json& value = reader[key];
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary_size) {
      return reader.Bad(key, absl::StrCat("must hold token ids, holds ", id.dump()));
    }
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

}  // namespace

void ModelConfig::AddStopToken(TokenId id) {
  if (std::find(stop_token_ids.begin(), stop_token_ids.end(), id) == stop_token_ids.end()) {
    stop_token_ids.push_back(id);
  }
}

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& json_text, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const json document, ParseJsonObject(json_text, path));
  const ConfigReader reader(document, path);
  ModelConfig config;
  ABSTRACT_RETURN_IF_ERROR(CheckSupportedConfig(reader));
  ABSTRACT_ASSIGN_OR_RETURN(config.layers, ReadLayers(reader));
  config.architecture = reader["architectures"][0].get<std::string>();
  ABSTRACT_ASSIGN_OR_RETURN(config.head_count, reader.Size("num_attention_heads"));
  ABSTRACT_ASSIGN_OR_RETURN(config.key_value_head_count,
                            reader.Size("num_key_value_heads", config.head_count));
  ABSTRACT_ASSIGN_OR_RETURN(config.d_model, reader.Size("hidden_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.d_ff, reader.Size("intermediate_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.vocabulary_size, reader.Size("vocab_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.context_length, reader.Size("max_position_embeddings", 2048));
  ABSTRACT_ASSIGN_OR_RETURN(config.rms_norm_epsilon, reader.Number("rms_norm_eps", 1e-6));
  if (!reader.Has("head_dim") && config.d_model % config.head_count != 0) {
    return reader.Bad("num_attention_heads", "does not divide hidden_size, and head_dim is missing");
  }
  ABSTRACT_ASSIGN_OR_RETURN(config.head_size, reader.Size("head_dim", config.d_model / config.head_count));
  if (config.head_size % 2 != 0) return reader.Bad("head_dim", "must be even for rotary embeddings");
  if (int64_t{config.head_count} * config.head_size > kMaxSize) {
    return reader.Bad("head_dim", "times num_attention_heads is impossibly large");
  }
  if (config.head_count % config.key_value_head_count != 0) {
    return reader.Bad("num_key_value_heads", "does not divide num_attention_heads");
  }
  config.tied_embeddings = reader.Has("tie_word_embeddings") && reader["tie_word_embeddings"] == true;
  ABSTRACT_RETURN_IF_ERROR(ReadRope(reader, path, config));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> end,
                            ReadTokenIds(reader, "eos_token_id", config.vocabulary_size));
  for (const TokenId id : end) config.AddStopToken(id);
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> begin,
                            ReadTokenIds(reader, "bos_token_id", config.vocabulary_size));
  if (!begin.empty()) config.begin_token_id = begin.front();
  return config;
}

absl::Status AddGenerationStopTokens(const std::string& json_text, const std::string& path,
                                     ModelConfig& config) {
  ABSTRACT_ASSIGN_OR_RETURN(const json document, ParseJsonObject(json_text, path));
  const ConfigReader reader(document, path);
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> end,
                            ReadTokenIds(reader, "eos_token_id", config.vocabulary_size));
  for (const TokenId id : end) config.AddStopToken(id);
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
