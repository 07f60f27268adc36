#ifndef DATA_TRAINER_LEXICON_H_
#define DATA_TRAINER_LEXICON_H_

#include <string>
#include <vector>

#include "data/trainer/corpus.h"
#include "data/trainer/grammar.h"

namespace mechinterp::trainer {

// The text from which the tokenizer's merges are learned: conversations of the
// corpus, and each entry of the grammar once in a running sentence, so that a
// word that only held-out requests would show still gets its token.
std::vector<std::string> TokenizerText(const Grammar& grammar, const Corpus& corpus, Random& random);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_LEXICON_H_
