#include "services/engine/tokenizer/tokenizer_config.h"

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Far more than real ones have, which list every added token.
constexpr uint64_t kMaxBytes = 16 << 20;

// A token: its text, or an object whose `content` is the text.
absl::StatusOr<std::string> ReadToken(const json& root, const char* key, const std::string& path) {
  const auto found = root.find(key);
  if (found == root.end() || found->is_null()) return std::string();
  const json& value = found->is_object() && found->contains("content") ? found->at("content")
                                                                       : static_cast<const json&>(*found);
  if (!value.is_string()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": '", key, "' must be a token's text or an object"));
  }
  return value.get<std::string>();
}

absl::StatusOr<std::string> ReadText(const json& root, const char* key, const std::string& path) {
  const auto found = root.find(key);
  if (found == root.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  return absl::InvalidArgumentError(absl::StrCat(path, ": '", key, "' must be a text"));
}

absl::StatusOr<std::optional<bool>> ReadFlag(const json& root, const char* key, const std::string& path) {
  const auto found = root.find(key);
  if (found == root.end() || found->is_null()) return std::optional<bool>();
  if (found->is_boolean()) return std::optional<bool>(found->get<bool>());
  return absl::InvalidArgumentError(absl::StrCat(path, ": '", key, "' must be true or false"));
}

// The text, or a list of {"name": ..., "template": ...}.
absl::Status ReadChatTemplate(const json& root, const std::string& path, TokenizerConfig& config) {
  const auto found = root.find("chat_template");
  if (found == root.end() || found->is_null()) return absl::OkStatus();
  if (found->is_string()) {
    config.chat_template = found->get<std::string>();
    return absl::OkStatus();
  }
  const absl::Status malformed = absl::InvalidArgumentError(absl::StrCat(
      path, ": 'chat_template' must be a text, or a list of objects with 'name' and 'template'"));
  if (!found->is_array()) return malformed;
  for (const json& named : *found) {
    if (!named.is_object() || !named.contains("name") || !named["name"].is_string() ||
        !named.contains("template") || !named["template"].is_string()) {
      return malformed;
    }
    config.template_names.push_back(named["name"].get<std::string>());
    if (named["name"] == "default") config.chat_template = named["template"].get<std::string>();
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerConfig> Parse(const std::string& text, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const json root, ParseJsonObject(text, path));
  TokenizerConfig config;
  for (const char* name :
       {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadToken(root, name, path));
    if (!text.empty()) config.special_tokens[name] = text;
  }
  if (config.special_tokens.contains("bos_token")) config.begin_of_text = config.special_tokens["bos_token"];
  ABSTRACT_ASSIGN_OR_RETURN(config.tokenizer_class, ReadText(root, "tokenizer_class", path));
  ABSTRACT_ASSIGN_OR_RETURN(config.add_bos_token, ReadFlag(root, "add_bos_token", path));
  ABSTRACT_ASSIGN_OR_RETURN(config.add_eos_token, ReadFlag(root, "add_eos_token", path));
  ABSTRACT_RETURN_IF_ERROR(ReadChatTemplate(root, path, config));
  return config;
}

}  // namespace

absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& directory) {
  TokenizerConfig config;
  const std::string settings = (fs::path(directory) / "tokenizer_config.json").string();
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_settings, FileExists(settings));
  if (has_settings) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(settings, kMaxBytes));
    ABSTRACT_ASSIGN_OR_RETURN(config, Parse(text, settings));
  }
  const std::string jinja = (fs::path(directory) / "chat_template.jinja").string();
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_jinja, FileExists(jinja));
  if (has_jinja) {
    ABSTRACT_ASSIGN_OR_RETURN(config.chat_template, ReadTextFile(jinja, kMaxBytes));
    const size_t valid = ValidUtf8PrefixLength(config.chat_template);
    if (valid < config.chat_template.size()) {
      return absl::InvalidArgumentError(absl::StrCat(jinja, ": is not UTF-8, from byte ", valid, " on"));
    }
  }
  return config;
}

}  // namespace mechinterp::engine
