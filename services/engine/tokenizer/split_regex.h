#ifndef SERVICES_ENGINE_TOKENIZER_SPLIT_REGEX_H_
#define SERVICES_ENGINE_TOKENIZER_SPLIT_REGEX_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace mechinterp::engine {

// A Hugging Face `Split` pre-tokenizer with behaviour "Isolated": cuts text at
// the bounds of each match of a pattern; what lies between matches is kept as
// pieces too. Immutable: safe from any thread.
class SplitRegex {
 public:
  // Errors: InvalidArgument with the reason and where in the pattern.
  static absl::StatusOr<SplitRegex> Compile(std::string_view pattern);

  // Appends the pieces of `text`, which must be valid UTF-8; none is empty and
  // together they are the text. Should PCRE2 give up (its match limit), the rest
  // becomes one piece: a poorer tokenization, but still of the same text.
  void Split(std::string_view text, std::vector<std::string_view>* pieces) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;

  explicit SplitRegex(Code code) : code_(std::move(code)) {}
  Code code_;
};

// The pattern as PCRE2 has to read it to match what Oniguruma, Hugging Face's
// engine, does. They differ in `\s`: PCRE2 takes U+180E for a space, Unicode no
// longer does. Errors: InvalidArgument where the two read a character class
// differently (nested classes, `&&`).
absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_SPLIT_REGEX_H_
