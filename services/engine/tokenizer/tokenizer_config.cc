#include "services/engine/tokenizer/tokenizer_config.h"

#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A token: its text, or an object whose `content` is the text.
absl::StatusOr<std::string> ReadToken(const json& root, const char* key) {
  const auto found = root.find(key);
  if (found == root.end() || found->is_null()) return std::string();
  const json& value = found->is_object() && found->contains("content") ? found->at("content")
                                                                       : static_cast<const json&>(*found);
  if (!value.is_string()) {
    return absl::InvalidArgumentError(absl::StrCat("'", key, "' must be a token's text or an object"));
  }
  return value.get<std::string>();
}

// The text, or a list of {"name": ..., "template": ...}.
absl::StatusOr<std::string> ReadChatTemplate(const json& root) {
  const auto found = root.find("chat_template");
  if (found == root.end() || found->is_null()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  const absl::Status malformed = absl::InvalidArgumentError(
      "'chat_template' must be a text, or a list of objects with 'name' and 'template'");
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

absl::StatusOr<TokenizerConfig> Parse(const std::string& text) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError("not a JSON object");
  TokenizerConfig config;
  ABSTRACT_ASSIGN_OR_RETURN(config.begin_of_text, ReadToken(root, "bos_token"));
  ABSTRACT_ASSIGN_OR_RETURN(config.chat_template, ReadChatTemplate(root));
  return config;
}

}  // namespace

absl::StatusOr<TokenizerConfig> LoadTokenizerConfig(const std::string& directory) {
  TokenizerConfig config;
  std::error_code error;
  if (const fs::path path = fs::path(directory) / "tokenizer_config.json"; fs::exists(path, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path.string()));
    absl::StatusOr<TokenizerConfig> parsed = Parse(text);
    if (!parsed.ok()) {
      return absl::Status(parsed.status().code(),
                          absl::StrCat(path.string(), ": ", parsed.status().message()));
    }
    config = *std::move(parsed);
  }
  if (const fs::path path = fs::path(directory) / "chat_template.jinja"; fs::exists(path, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(config.chat_template, ReadTextFile(path.string()));
  }
  return config;
}

}  // namespace mechinterp::engine
