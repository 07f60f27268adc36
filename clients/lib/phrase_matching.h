#ifndef CLIENTS_LIB_PHRASE_MATCHING_H_
#define CLIENTS_LIB_PHRASE_MATCHING_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;

namespace mechinterp {

// Phrases in what models write: typographic marks, emoji, any script around them.
// Immutable and thread-safe. Text is UTF-8; bytes that are not stand for no character.

// `text` with what a reader does not tell apart made the same: apostrophes of every kind
// to ', any run of white space to one space and none at the ends, full-width and
// mathematical letters to plain ones. Zero-width characters, soft hyphens and
// Markdown's * and _ are left out. Letters of other scripts that only look alike stay.
std::string FoldForMatching(std::string_view text);

// Where the first letter or digit of `folded` is; its size without any.
size_t FirstWord(std::string_view folded);

inline constexpr size_t kMaxPhraseBytes = 1000;

// A phrase as whole words: what stands before and after it is no letter, digit or
// combining mark. Scripts that put no spaces between words (Han, kana, Thai ...) bound
// words, as in Unicode's annex 29. Case does not matter.
class PhrasePattern {
 public:
  // `phrase` is folded first; valid UTF-8 of at most kMaxPhraseBytes (others occur nowhere).
  explicit PhrasePattern(std::string_view phrase);

  // Where the phrase first occurs in `folded`; npos if nowhere.
  size_t Find(std::string_view folded) const;

 private:
  std::shared_ptr<const pcre2_real_code_8> code_;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PHRASE_MATCHING_H_
