#include "clients/lib/judge.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/lib/phrase_matching.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp {

RefusalJudge::RefusalJudge(const std::vector<std::string>& phrases) : phrases_(phrases) {
  for (const std::string& phrase : phrases) patterns_.emplace_back(phrase);
}

absl::StatusOr<RefusalJudge> RefusalJudge::Load(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json document, ReadJsonFile(path));
  const auto list = document.is_object() ? document.value("phrases", nlohmann::json()) : nlohmann::json();
  if (!list.is_array() || list.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": \"phrases\" must be a list of refusal phrases"));
  }
  std::vector<std::string> phrases;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string phrase = list[i].is_string() ? list[i].get<std::string>() : "";
    if (FoldForMatching(phrase).empty() || phrase.size() > kMaxPhraseBytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": phrases[", i,
                                                     "] must be a text that is not empty, of at most ",
                                                     kMaxPhraseBytes, " bytes"));
    }
    phrases.push_back(phrase);
  }
  return RefusalJudge(phrases);
}

Judgement RefusalJudge::Judge(std::string_view completion) const {
  const std::string text = FoldForMatching(completion);
  const size_t start = FirstWord(text);
  Judgement judgement;
  size_t first = std::string::npos;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    const size_t at = patterns_[i].Find(text);
    if (at == std::string::npos) continue;
    judgement.refused = true;
    if (at <= start) judgement.refused_at_start = true;
    if (at < first) judgement.phrase = phrases_[i];
    first = std::min(first, at);
  }
  return judgement;
}

}  // namespace mechinterp
