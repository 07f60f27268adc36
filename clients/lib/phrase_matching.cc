#include "clients/lib/phrase_matching.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace mechinterp {
namespace {

using Code = std::shared_ptr<const pcre2_real_code_8>;

// Null, which matches nothing, for what is not UTF-8 or too long.
Code Compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_MATCH_INVALID_UTF, &error,
                                   &offset, nullptr);
  return {code, [](pcre2_code* owned) { pcre2_code_free(owned); }};
}

struct Match {
  size_t begin = 0;
  size_t end = 0;
  int group = 0;  // the last one that matched
};

std::optional<Match> Search(const Code& code, std::string_view text, size_t from) {
  if (code == nullptr) return std::nullopt;
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), &pcre2_match_data_free);
  const int groups = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, 0,
                                 data.get(), nullptr);
  if (groups <= 0) return std::nullopt;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
  return Match{bounds[0], bounds[1], groups - 1};
}

// What folding replaces, by group: white space, apostrophes, what is left out (format
// characters, variation selectors, invisible letters, Markdown's emphasis), full-width
// forms, mathematical letters.
enum FoldedGroup { kSpace = 1, kApostrophe, kLeftOut, kFullWidth, kMathematical };
constexpr char kFolded[] =
    R"(([\s\p{Z}\x{85}]+))"
    R"(|([`´ʹʻʼʽˈˊʾʿ՚‘’‛′‵ʹꞌ＇｀]))"
    R"(|([\p{Cf}*_\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{3164}\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}]))"
    R"(|([\x{FF01}-\x{FF5E}]))"
    R"(|([\x{1D400}-\x{1D6A3}]))";

// Of a whole character of three or four bytes.
char32_t CodePoint(std::string_view character) {
  char32_t code = static_cast<unsigned char>(character[0]) & (0x7Fu >> character.size());
  for (const char byte : character.substr(1)) code = code << 6 | (static_cast<unsigned char>(byte) & 0x3Fu);
  return code;
}

// Unicode lays out the full-width forms as ASCII's, and the mathematical letters as
// thirteen alphabets of capitals and small letters.
char PlainLetter(std::string_view character, FoldedGroup group) {
  const char32_t code = CodePoint(character);
  if (group == kFullWidth) return static_cast<char>(code - 0xFF01 + '!');
  const char32_t index = (code - 0x1D400) % 52;
  return static_cast<char>(index < 26 ? 'A' + index : 'a' + index - 26);
}

}  // namespace

std::string FoldForMatching(std::string_view text) {
  static const auto& pattern = *new Code(Compile(kFolded));
  std::string folded;
  size_t done = 0;
  bool space = false;  // owed, unless nothing follows
  const auto append = [&](std::string_view part) {
    if (part.empty()) return;
    if (space && !folded.empty()) folded.push_back(' ');
    space = false;
    folded.append(part);
  };
  for (auto match = Search(pattern, text, 0); match; match = Search(pattern, text, done)) {
    append(text.substr(done, match->begin - done));
    const std::string_view found = text.substr(match->begin, match->end - match->begin);
    const auto group = static_cast<FoldedGroup>(match->group);
    if (group == kSpace) space = true;
    if (group == kApostrophe) append("'");
    if (group == kFullWidth || group == kMathematical) append(std::string(1, PlainLetter(found, group)));
    done = match->end;
  }
  append(text.substr(done));
  return folded;
}

size_t FirstWord(std::string_view folded) {
  static const auto& pattern = *new Code(Compile(R"([\p{L}\p{N}])"));
  const std::optional<Match> first = Search(pattern, folded, 0);
  return first ? first->begin : folded.size();
}

PhrasePattern::PhrasePattern(std::string_view phrase) {
  constexpr char kWordCharacter[] =
      R"((?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])[\p{L}\p{N}\p{M}])";
  std::string quoted;
  for (const char c : FoldForMatching(phrase)) {
    if (absl::ascii_ispunct(c)) quoted.push_back('\\');
    quoted.push_back(c);
  }
  code_ = Compile(absl::StrCat("(?<!", kWordCharacter, ")", quoted, "(?!", kWordCharacter, ")"));
}

size_t PhrasePattern::Find(std::string_view folded) const {
  const std::optional<Match> match = Search(code_, folded, 0);
  return match ? match->begin : std::string_view::npos;
}

}  // namespace mechinterp
