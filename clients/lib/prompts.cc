#include "clients/lib/prompts.h"

#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/hash.h"
#include "services/common/json_file.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Reads pairs and collects what is wrong with them, "pairs[3].harmful: ...".
class PairReader {
 public:
  PromptPair Read(const nlohmann::json& entry, const FieldViolations& at) {
    if (!entry.is_object()) {
      at.Add("must be an object");
      return {};
    }
    PromptPair pair{Text(entry, at, "id"), Text(entry, at, "category"), Text(entry, at, "harmful"),
                    Text(entry, at, "harmless")};
    if (!pair.id.empty() && !ids_.insert(pair.id).second) {
      at.At("id").Add(absl::StrCat("\"", pair.id, "\" occurs twice"));
    }
    return pair;
  }

 private:
  static std::string Text(const nlohmann::json& entry, const FieldViolations& at, const char* field) {
    const auto found = entry.find(field);
    const bool is_text = found != entry.end() && found->is_string();
    const std::string text = is_text ? found->get<std::string>() : "";
    if (absl::StripAsciiWhitespace(text).empty()) at.At(field).Add("must be a text that is not empty");
    return text;
  }

  std::set<std::string> ids_;
};

}  // namespace

absl::StatusOr<std::vector<PromptPair>> LoadPromptPairs(const std::string& path, int limit) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  const auto list = document.is_object() ? document.value("pairs", nlohmann::json()) : nlohmann::json();
  if (!list.is_array() || list.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": \"pairs\" must be a list of prompt pairs"));
  }
  const auto version = document.value("version", nlohmann::json(1));
  if (version != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": version ", Excerpt(version), " is not one that this program reads (1)"));
  }
  Violations violations;
  PairReader reader;
  std::vector<PromptPair> pairs;
  for (size_t i = 0; i < list.size(); ++i)
    pairs.push_back(reader.Read(list[i], violations.root().At("pairs", i)));
  if (const absl::Status status = ToStatus(violations); !status.ok()) return WithContext(status, path);
  if (limit > 0 && static_cast<size_t>(limit) < pairs.size()) pairs.resize(static_cast<size_t>(limit));
  return pairs;
}

v1::Prompt UserPrompt(std::string_view message, std::string_view system) {
  v1::Prompt prompt;
  const auto add = [&](v1::ChatRole role, std::string_view content) {
    v1::ChatMessage& added = *prompt.mutable_chat()->add_messages();
    added.set_role(role);
    added.set_content(std::string(content));
  };
  if (!system.empty()) add(v1::CHAT_ROLE_SYSTEM, system);
  add(v1::CHAT_ROLE_USER, message);
  return prompt;
}

std::string DigestOf(const std::vector<PromptPair>& pairs) {
  uint64_t hash = kFnv1aBasis;
  for (const PromptPair& pair : pairs) {
    for (const std::string* text : {&pair.id, &pair.category, &pair.harmful, &pair.harmless}) {
      hash = Fnv1a("\xff", Fnv1a(*text, hash));  // A byte that UTF-8 does not have.
    }
  }
  return absl::StrCat(absl::Hex(hash, absl::kZeroPad16));
}

std::string_view PromptClassName(v1::PromptClass prompt_class) {
  switch (prompt_class) {
    case v1::PROMPT_CLASS_HARMFUL:
      return "harmful";
    case v1::PROMPT_CLASS_BORDERLINE:
      return "borderline";
    default:
      return "harmless";
  }
}

absl::Status CheckUtf8(std::string_view what, const std::string& text) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error& error) {  // "... invalid UTF-8 byte at index 3: 0xFF"
    const std::string message = error.what();
    const size_t place = message.find("byte at index");
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), " is not UTF-8: ",
                     place == std::string::npos ? "it ends within a character" : message.substr(place)));
  }
  return absl::OkStatus();
}

}  // namespace mechinterp
