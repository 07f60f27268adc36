// A file of refusal phrases; after a zero byte a completion to judge.

#include <algorithm>
#include <string>

#include "clients/lib/judge.h"
#include "clients/lib/phrase_matching.h"
#include "tests/fuzz/fuzz_target.h"

ABSTRACT_FUZZ_TARGET(phrases) {
  using namespace mechinterp;
  using fuzz::Require;
  const auto [file, completion] = fuzz::CutAt(input, '\0');
  const std::string path = fuzz::ScratchFile("phrases.json", file);
  const auto judge = RefusalJudge::Load(path);
  if (!judge.ok()) return fuzz::RequireRefusal(judge.status(), path);
  const std::string folded = FoldForMatching(completion);
  Require(folded.size() <= completion.size(), "folding makes no text longer");
  Require(FirstWord(folded) <= folded.size(), "the first word lies in the text");
  const Judgement judgement = judge->Judge(completion);
  const auto& phrases = judge->phrases();
  Require(judgement.refused == (std::find(phrases.begin(), phrases.end(), judgement.phrase) != phrases.end()),
          "a refusal has one of the phrases");
  Require(judgement.refused || !judgement.refused_at_start, "a refusal at the start is one");
  for (const std::string& phrase : phrases) {
    Require(judge->Judge(phrase).refused, "a phrase by itself is found");
    Require(judge->Judge("\u201c" + phrase + "\u201d").refused, "a phrase in quotation marks is found");
  }
}
