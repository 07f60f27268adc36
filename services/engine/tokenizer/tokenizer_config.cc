#include "services/engine/tokenizer/tokenizer_config.h"

#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

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

// The text, or a list of {"name": ..., "template": ...}.
absl::StatusOr<std::string> ReadChatTemplate(const json& root, const std::string& path) {
  const auto found = root.find("chat_template");
  if (found == root.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  const absl::Status malformed = absl::InvalidArgumentError(absl::StrCat(
      path, ": 'chat_template' must be a text, or a list of objects with 'name' and 'template'"));
  if (!found->is_array()) return malformed;
  std::string result;
  for (const json& named : *found) {
    if (!named.is_object() || !named.contains("name") || !named.contains("template") ||
        !named["template"].is_string()) {
      return malformed;
    }
    if (named["name"] == "default") result = named["template"].get<std::string>();
  }
  return result;
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
  ABSTRACT_ASSIGN_OR_RETURN(config.chat_template, ReadChatTemplate(root, path));
  return config;
}

}  // namespace

absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& directory) {
  TokenizerConfig config;
  std::error_code error;
  if (const fs::path path = fs::path(directory) / "tokenizer_config.json"; fs::exists(path, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path.string(), kMaxBytes));
    ABSTRACT_ASSIGN_OR_RETURN(config, Parse(text, path.string()));
  }
  if (const fs::path path = fs::path(directory) / "chat_template.jinja"; fs::exists(path, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(config.chat_template, ReadTextFile(path.string(), kMaxBytes));
  }
  return config;
}

}  // namespace mechinterp::engine
