#include "clients/lib/prompts.h"

#include <cstdint>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/hash.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Reads pairs and collects what is wrong with them, "pairs[3].harmful: ...".
class PairReader {
 public:
  PromptPair Read(const nlohmann::json& entry, size_t index) {
    const std::string where = absl::StrCat("pairs[", index, "]");
    if (!entry.is_object()) {
      problems_.push_back(absl::StrCat(where, ": must be an object"));
      return {};
    }
    PromptPair pair{Text(entry, where, "id"), Text(entry, where, "category"), Text(entry, where, "harmful"),
                    Text(entry, where, "harmless")};
    if (!pair.id.empty() && !ids_.insert(pair.id).second) {
      problems_.push_back(absl::StrCat(where, ".id: \"", pair.id, "\" occurs twice"));
    }
    return pair;
  }

  absl::Status status(const std::string& path) const {
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", absl::StrJoin(problems_, "; ")));
  }

 private:
  std::string Text(const nlohmann::json& entry, const std::string& where, const char* field) {
    const auto found = entry.find(field);
    const bool is_text = found != entry.end() && found->is_string();
    const std::string text = is_text ? found->get<std::string>() : "";
    if (absl::StripAsciiWhitespace(text).empty()) {
      problems_.push_back(absl::StrCat(where, ".", field, ": must be a text that is not empty"));
    }
    return text;
  }

  std::set<std::string> ids_;
  std::vector<std::string> problems_;
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
        absl::StrCat(path, ": version ", version.dump(), " is not one that this program reads (1)"));
  }
  PairReader reader;
  std::vector<PromptPair> pairs;
  for (size_t i = 0; i < list.size(); ++i) pairs.push_back(reader.Read(list[i], i));
  ABSTRACT_RETURN_IF_ERROR(reader.status(path));
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
  return prompt_class == v1::PROMPT_CLASS_HARMFUL ? "harmful" : "harmless";
}

}  // namespace mechinterp
