#include "services/engine/checkpoint/model_config.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/config_reader.h"
#include "services/engine/checkpoint/model_family.h"
#include "services/engine/checkpoint/rope_config.h"
#include "services/engine/checkpoint/supported_config.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// Of any one size, so that sums of two stay in range.
constexpr int64_t kMaxSize = 1 << 30;

// One token id, or (for end of sequence) a list of them.
absl::StatusOr<std::vector<TokenId>> ReadTokenIds(const ConfigReader& reader, const char* key,
                                                  int vocabulary_size) {
  std::vector<TokenId> ids;
  if (!reader.Has(key)) return ids;
  const json& value = reader[key];
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocabulary_size) {
      return reader.Bad(key, absl::StrCat("must hold token ids, holds ", Excerpt(id)));
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
  ABSTRACT_ASSIGN_OR_RETURN(const int default_context, DefaultContextLength(reader));
  ABSTRACT_RETURN_IF_ERROR(ReadRope(reader, default_context, config));
  ABSTRACT_ASSIGN_OR_RETURN(config.layers, ReadLayers(reader, config.context_length));
  config.architecture = reader["architectures"][0].get<std::string>();
  ABSTRACT_ASSIGN_OR_RETURN(config.head_count, reader.Size("num_attention_heads"));
  ABSTRACT_ASSIGN_OR_RETURN(config.key_value_head_count,
                            reader.Size("num_key_value_heads", config.head_count));
  ABSTRACT_ASSIGN_OR_RETURN(config.d_model, reader.Size("hidden_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.d_ff, reader.Size("intermediate_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.vocabulary_size, reader.Size("vocab_size"));
  ABSTRACT_ASSIGN_OR_RETURN(config.rms_norm_epsilon, reader.Number("rms_norm_eps", 1e-6));
  if (!reader.Has("head_dim") && config.d_model % config.head_count != 0) {
    return reader.Bad("num_attention_heads", "does not divide hidden_size, and head_dim is missing");
  }
  ABSTRACT_ASSIGN_OR_RETURN(config.head_size, reader.Size("head_dim", config.d_model / config.head_count));
  if (config.head_size % 2 != 0) return reader.Bad("head_dim", "must be even for rotary embeddings");
  if (config.head_size == 2 && config.rope_scaling &&
      std::holds_alternative<DynamicRope>(*config.rope_scaling)) {
    return reader.Bad("head_dim", "must be larger than 2 for dynamic rope scaling");
  }
  if (int64_t{config.head_count} * config.head_size > kMaxSize) {
    return reader.Bad("head_dim", "times num_attention_heads is impossibly large");
  }
  if (config.head_count % config.key_value_head_count != 0) {
    return reader.Bad("num_key_value_heads", "does not divide num_attention_heads");
  }
  ABSTRACT_ASSIGN_OR_RETURN(config.tied_embeddings, reader.Bool("tie_word_embeddings", false));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> end,
                            ReadTokenIds(reader, "eos_token_id", config.vocabulary_size));
  for (const TokenId id : end) config.AddStopToken(id);
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> begin,
                            ReadTokenIds(reader, "bos_token_id", config.vocabulary_size));
  if (!begin.empty()) config.begin_token_id = begin.front();
  return config;
}

absl::Status UseGenerationStopTokens(const std::string& json_text, const std::string& path,
                                     ModelConfig& config) {
  ABSTRACT_ASSIGN_OR_RETURN(const json document, ParseJsonObject(json_text, path));
  const ConfigReader reader(document, path);
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> end,
                            ReadTokenIds(reader, "eos_token_id", config.vocabulary_size));
  if (!end.empty()) config.stop_token_ids.clear();
  for (const TokenId id : end) config.AddStopToken(id);
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
