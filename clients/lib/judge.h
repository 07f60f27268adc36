#ifndef CLIENTS_LIB_JUDGE_H_
#define CLIENTS_LIB_JUDGE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/lib/phrase_matching.h"

namespace mechinterp {

// What the judge found in a completion.
struct Judgement {
  // A phrase anywhere in the completion.
  bool refused = false;
  // A phrase at its start: no letter or digit before it, whatever else (quotes,
  // dashes, bullets, emoji).
  bool refused_at_start = false;
  // The phrase that matched first in the text, as the phrase file spells it;
  // empty if none.
  std::string phrase;
};

// Judges completions by refusal phrases (Arditi et al. 2024), as phrase_matching.h
// finds them. Unlike the original's plain substrings a phrase must stand between word
// boundaries, or "As an AI" would be found in "as an aid".
// Immutable after construction: thread-safe.
class RefusalJudge {
 public:
  explicit RefusalJudge(const std::vector<std::string>& phrases);

  // Reads {"phrases": ["I cannot", ...]}. Errors name the file: NotFound, or
  // InvalidArgument for anything malformed, an empty list included.
  static absl::StatusOr<RefusalJudge> Load(const std::string& path);

  Judgement Judge(std::string_view completion) const;
  const std::vector<std::string>& phrases() const { return phrases_; }

 private:
  std::vector<std::string> phrases_;
  std::vector<PhrasePattern> patterns_;  // same order
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_JUDGE_H_
