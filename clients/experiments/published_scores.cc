#include "clients/experiments/published_scores.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/experiments/circuit_statistics.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {

absl::StatusOr<std::vector<PublishedScore>> LoadPublishedScores(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  std::vector<PublishedScore> scores;
  int line_number = 0;
  bool has_names = false;
  for (const absl::string_view raw : absl::StrSplit(text, '\n')) {
    ++line_number;
    const absl::string_view line = absl::StripAsciiWhitespace(raw);
    if (line.empty() || line[0] == '#') continue;
    if (!has_names) {
      has_names = true;
      continue;
    }
    const std::vector<absl::string_view> cells = absl::StrSplit(line, '\t');
    PublishedScore score;
    if (cells.size() != 5 || !absl::SimpleAtoi(cells[0], &score.position) ||
        !absl::SimpleAtoi(cells[1], &score.layer) || !absl::SimpleAtod(cells[2], &score.bypass) ||
        !absl::SimpleAtod(cells[3], &score.induce) || !absl::SimpleAtod(cells[4], &score.kl)) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", line_number, ": must be five numbers: position, layer, bypass, induce, KL"));
    }
    scores.push_back(score);
  }
  return scores;
}

bool IsPublishedModel(const std::string& name, uint32_t layer_count) {
  constexpr uint32_t kLayers = 32;
  const std::string lower = absl::AsciiStrToLower(name);
  return layer_count == kLayers &&
         (absl::StrContains(lower, "llama-3-8b-instruct") || absl::StrContains(lower, "llama3-8b-instruct"));
}

std::optional<v1::PublishedAgreement> AgreementWith(const std::vector<PublishedScore>& published,
                                                    const v1::DirectionResults& results) {
  std::vector<double> ours[3], theirs[3];
  for (const PublishedScore& other : published) {
    for (const v1::DirectionCandidate& own : results.candidates()) {
      if (own.position() != other.position || own.layer() != static_cast<uint32_t>(other.layer)) continue;
      const double pairs[3][2] = {
          {own.bypass(), other.bypass}, {own.induce(), other.induce}, {own.kl(), other.kl}};
      for (int i = 0; i < 3; ++i) {
        ours[i].push_back(pairs[i][0]);
        theirs[i].push_back(pairs[i][1]);
      }
    }
  }
  if (ours[0].size() < 2) return std::nullopt;
  v1::PublishedAgreement agreement;
  agreement.set_candidate_count(static_cast<uint32_t>(ours[0].size()));
  agreement.set_bypass(SpearmanCorrelation(ours[0], theirs[0]));
  agreement.set_induce(SpearmanCorrelation(ours[1], theirs[1]));
  agreement.set_kl(SpearmanCorrelation(ours[2], theirs[2]));
  return agreement;
}

}  // namespace mechinterp
