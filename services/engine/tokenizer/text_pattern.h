#ifndef SERVICES_ENGINE_TOKENIZER_TEXT_PATTERN_H_
#define SERVICES_ENGINE_TOKENIZER_TEXT_PATTERN_H_

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

struct pcre2_real_code_8;

namespace mechinterp::engine {

// What a stage of a tokenizer looks for: a text, or a regular expression in
// Oniguruma's syntax. Immutable: safe from any thread.
class TextPattern {
 public:
  // Errors: InvalidArgument with the reason and where in the pattern;
  // Unimplemented for what OnigurumaToPcre2 refuses.
  static absl::StatusOr<TextPattern> Compile(const Pattern& pattern);

  // A match, or what lies between two. Matches may be empty, the others are not.
  struct Part {
    std::string_view text;
    bool is_match = false;
  };
  // Cuts `text` into parts, as Hugging Face's `find_matches` does; together they
  // are the text. Malformed UTF-8 matches no regular expression and is a part of
  // its own. Should PCRE2 give up (its match limit), the rest is one part: a poorer
  // tokenization, but still of the same text.
  std::vector<Part> Cut(std::string_view text) const;
  // `text` with `content` in place of each match.
  std::string ReplaceAll(std::string_view text, std::string_view content) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;

  TextPattern(std::string literal, Code code) : literal_(std::move(literal)), code_(std::move(code)) {}
  void CutByLiteral(std::string_view text, std::vector<Part>* parts) const;
  void CutByRegex(std::string_view valid_utf8, std::vector<Part>* parts) const;

  std::string literal_;
  Code code_;  // null: the literal is looked for
};

// The pattern as PCRE2 has to read it to match what Oniguruma, Hugging Face's
// engine, does. They differ in `\s`: PCRE2 takes U+180E for a space, Unicode no
// longer does. Errors: Unimplemented where the two read a character class
// differently (nested classes, `&&`), InvalidArgument for an unfinished one.
absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TEXT_PATTERN_H_
