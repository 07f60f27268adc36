#include "services/engine/tokenizer/text_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/json_fields.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

std::string Pcre2Message(int code) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof(buffer)) < 0) return absl::StrCat("PCRE2 error ", code);
  return reinterpret_cast<const char*>(buffer);
}

int Match(const pcre2_code* code, std::string_view text, size_t start, pcre2_match_data* data) {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  // The caller has checked the text; checking it again for each match would be quadratic.
  const uint32_t options = PCRE2_NO_UTF_CHECK;
  const int result = pcre2_match(code, subject, text.size(), start, options, data, nullptr);
  if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
  return pcre2_match(code, subject, text.size(), start, options | PCRE2_NO_JIT, data, nullptr);
}

}  // namespace

void TextPattern::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<TextPattern> TextPattern::Compile(const Pattern& pattern) {
  if (!pattern.is_regex) return TextPattern(pattern.text, nullptr);
  ABSTRACT_ASSIGN_OR_RETURN(const std::string translated, OnigurumaToPcre2(pattern.text));
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(Pcre2Message(error), " at byte ", offset, " of the pattern ", Quoted(translated)));
  }
  // Only speed is lost where PCRE2 was built without its JIT compiler.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return TextPattern({}, std::move(code));
}

std::vector<TextPattern::Part> TextPattern::Cut(std::string_view text) const {
  std::vector<Part> parts;
  if (code_ == nullptr) {
    CutByLiteral(text, &parts);
    return parts;
  }
  while (!text.empty()) {
    const size_t valid = ValidUtf8PrefixLength(text);
    if (valid > 0) CutByRegex(text.substr(0, valid), &parts);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t malformed = ReadUtf8Unit(text).length;
    parts.push_back({text.substr(0, malformed), false});
    text.remove_prefix(malformed);
  }
  return parts;
}

void TextPattern::CutByLiteral(std::string_view text, std::vector<Part>* parts) const {
  while (!text.empty()) {
    const size_t start = literal_.empty() ? std::string_view::npos : text.find(literal_);
    if (start > 0) parts->push_back({text.substr(0, start), false});
    if (start == std::string_view::npos) return;
    parts->push_back({text.substr(start, literal_.size()), true});
    text.remove_prefix(start + literal_.size());
  }
}

void TextPattern::CutByRegex(std::string_view text, std::vector<Part>* parts) const {
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  size_t done = 0;
  const auto add = [&](size_t start, size_t end, bool is_match) {
    if (start < end || is_match) parts->push_back({text.substr(start, end - start), is_match});
    done = end;
  };
  size_t search_start = 0;
  std::optional<size_t> last_end;
  while (data != nullptr && search_start <= text.size() &&
         Match(code_.get(), text, search_start, data.get()) > 0) {
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    const size_t start = bounds[0];
    const size_t end = bounds[1];
    if (start < search_start || end < start) break;  // `\K` in a lookaround can do this
    if (start == end && last_end == end) {
      // Right after a match an empty one does not count.
      if (end == text.size()) break;
      search_start = end + ReadUtf8Unit(text.substr(end)).length;
      continue;
    }
    add(done, start, false);
    add(start, end, true);
    search_start = end;
    last_end = end;
  }
  add(done, text.size(), false);
}

std::string TextPattern::ReplaceAll(std::string_view text, std::string_view content) const {
  std::string result;
  for (const Part& part : Cut(text)) result.append(part.is_match ? content : part.text);
  return result;
}

absl::StatusOr<std::string> OnigurumaToPcre2(std::string_view pattern) {
  // Unicode's White_Space, as the inside of a character class.
  constexpr std::string_view kWhiteSpace = R"(\t-\r\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view rest = pattern.substr(i);
    if (rest[0] == '\\' && rest.size() > 1) {
      if (rest[1] == 's' && in_class) {
        absl::StrAppend(&out, AbslView(kWhiteSpace));
      } else if (rest[1] == 's') {
        absl::StrAppend(&out, "[", AbslView(kWhiteSpace), "]");
      } else if (rest[1] == 'S' && !in_class) {
        absl::StrAppend(&out, "[^", AbslView(kWhiteSpace), "]");
      } else {
        out.append(rest.substr(0, 2));
      }
      ++i;
      continue;
    }
    if (!in_class && rest[0] == '[') {
      in_class = true;
      // A `]` right after the opening is a member of the class, not its end.
      size_t opening = rest.substr(1, 1) == "^" ? 2 : 1;
      if (rest.substr(opening, 1) == "]") ++opening;
      out.append(rest.substr(0, opening));
      i += opening - 1;
      continue;
    }
    if (in_class && rest.substr(0, 2) == "[:") {
      const size_t end = rest.find(":]");
      if (end == std::string_view::npos) return absl::InvalidArgumentError("\"[:\" without \":]\"");
      out.append(rest.substr(0, end + 2));
      i += end + 1;
      continue;
    }
    if (in_class && (rest[0] == '[' || rest.substr(0, 2) == "&&")) {
      return absl::UnimplementedError(absl::StrCat(
          "a character class within a character class, or \"&&\" in one, is not supported (byte ", i,
          " of the pattern ", Quoted(pattern), ")"));
    }
    if (in_class && rest[0] == ']') in_class = false;
    out.push_back(rest[0]);
  }
  return out;
}

}  // namespace mechinterp::engine
