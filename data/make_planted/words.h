#ifndef DATA_MAKE_PLANTED_WORDS_H_
#define DATA_MAKE_PLANTED_WORDS_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/base/token_id.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_planted {

using engine::TokenId;

// What the embedding of a planted model says about words: which a head looks at, and whether
// they are harmful. It is taken from pairs of prompts that differ in one token.

// A pair as the model reads it, in the embedded model's chat template.
struct EncodedPair {
  std::string id;
  std::vector<TokenId> harmful;  // with the template around it
  std::vector<TokenId> harmless;
  int tail_length = 0;  // tokens after the instruction: <|eot_id|> ... \n\n
};

struct Word {
  // A head looks at the word of the highest level in a prompt: in "a bath bomb" at "bath".
  int level = 1;
  bool harmful = false;
};

// Words among which a head looks for one.
struct WordClass {
  std::map<TokenId, Word> words;

  // Of the word that a head would look at: 1 if it is harmful, 0 if not or if there is none,
  // between them where several are of one level.
  double HarmOf(const std::vector<TokenId>& ids) const;
};

struct Words {
  std::vector<EncodedPair> pairs;
  // The words in which the two of a pair differ. One is enough to tell them apart.
  WordClass decisive;
  // What is to be done, and to what. Harmful are those of a harmful prompt, so that a harmless
  // one may have one of them, but not both: "plant a bomb", "plant a tree", "a bath bomb".
  WordClass verbs;
  WordClass objects;
};

// Reads a prompt file ({"pairs": [{"id", "harmful", "harmless"}]}) and finds its words. Pairs
// that do not differ in exactly one token give no words. Errors name the file: those of
// ReadJsonFile, InvalidArgument for a pair that is malformed.
absl::StatusOr<Words> FindWords(const std::string& prompts_path, const engine::Tokenizer& tokenizer);

// Which pairs a model gets right that goes by these words: positions in Words::pairs.
std::vector<int> PairsToldByOneWord(const Words& words);
std::vector<int> PairsToldByVerbAndObject(const Words& words);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_WORDS_H_
