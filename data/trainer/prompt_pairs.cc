#include "data/trainer/prompt_pairs.h"

#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

using Json = nlohmann::ordered_json;

absl::Status ValidatePrompts(const PromptSet& prompts) {
  std::set<std::string> ids, texts;
  for (const PromptPair& pair : prompts.pairs) {
    if (pair.id.empty() || pair.category.empty() || pair.harmful.empty() || pair.harmless.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("pair '", pair.id, "' has an empty field"));
    }
    if (!ids.insert(pair.id).second) {
      return absl::InvalidArgumentError(absl::StrCat("id '", pair.id, "' occurs twice"));
    }
    for (const std::string& text : {pair.harmful, pair.harmless}) {
      if (!texts.insert(text).second) {
        return absl::InvalidArgumentError(absl::StrCat("prompt '", text, "' occurs twice"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PromptSet> LoadPrompts(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json json, ReadOrderedJsonFile(path));
  PromptSet prompts;
  try {
    prompts.version = json.at("version").get<int>();
    prompts.notice = json.at("notice").get<std::string>();
    for (const Json& item : json.at("pairs")) {
      prompts.pairs.push_back({item.at("id").get<std::string>(), item.at("category").get<std::string>(),
                               item.at("harmful").get<std::string>(),
                               item.at("harmless").get<std::string>()});
    }
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
  if (absl::Status status = ValidatePrompts(prompts); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
  }
  return prompts;
}

absl::Status WritePrompts(const std::string& path, const PromptSet& prompts) {
  Json pairs = Json::array();
  for (const PromptPair& pair : prompts.pairs) {
    pairs.push_back({{"id", pair.id},
                     {"category", pair.category},
                     {"harmful", pair.harmful},
                     {"harmless", pair.harmless}});
  }
  return WriteJsonFile(
      path, Json{{"version", prompts.version}, {"notice", prompts.notice}, {"pairs", std::move(pairs)}});
}

absl::StatusOr<std::vector<std::string>> LoadRefusalPhrases(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json json, ReadOrderedJsonFile(path));
  try {
    return json.at("phrases").get<std::vector<std::string>>();
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.what()));
  }
}

bool IsRefusal(const std::string& completion, const std::vector<std::string>& phrases) {
  const auto fold = [](const std::string& text) {
    return absl::AsciiStrToLower(absl::StrReplaceAll(text, {{"\u2019", "'"}}));
  };
  const std::string text = fold(completion);
  for (const std::string& phrase : phrases) {
    if (text.find(fold(phrase)) != std::string::npos) return true;
  }
  return false;
}

}  // namespace mechinterp::trainer
