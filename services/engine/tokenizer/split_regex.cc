#include "services/engine/tokenizer/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/absl_view.h"
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

void SplitRegex::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<SplitRegex> SplitRegex::Compile(std::string_view pattern) {
  absl::StatusOr<std::string> translated = OnigurumaToPcre2(pattern);
  if (!translated.ok()) return translated.status();
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(Pcre2Message(error), " at byte ", offset, " of the pattern \"", *translated, "\""));
  }
  // Only speed is lost where PCRE2 was built without its JIT compiler.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return SplitRegex(std::move(code));
}

void SplitRegex::Split(std::string_view text, std::vector<std::string_view>* pieces) const {
  const std::unique_ptr<pcre2_match_data, FreeMatchData> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  size_t piece_start = 0;
  const auto cut = [&](size_t end) {
    if (end > piece_start) pieces->push_back(text.substr(piece_start, end - piece_start));
    piece_start = end;
  };
  size_t search_start = 0;
  while (data != nullptr && search_start < text.size() &&
         Match(code_.get(), text, search_start, data.get()) > 0) {
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    const size_t start = bounds[0];
    const size_t end = bounds[1];
    if (start < search_start || end < start) break;  // `\K` in a lookaround can do this
    cut(start);
    cut(end);
    search_start = end;
    if (start == end && end < text.size()) search_start += ReadUtf8Unit(text.substr(end)).length;
    if (start == end && end == text.size()) break;
  }
  cut(text.size());
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
      return absl::InvalidArgumentError(absl::StrCat(
          "a character class within a character class, or \"&&\" in one, is not supported (byte ", i,
          " of the pattern \"", AbslView(pattern), "\")"));
    }
    if (in_class && rest[0] == ']') in_class = false;
    out.push_back(rest[0]);
  }
  return out;
}

}  // namespace mechinterp::engine
