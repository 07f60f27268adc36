#include "clients/lib/text_style.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace mechinterp {
namespace {

constexpr char kReset[] = "\033[0m";

const char* CodeOf(TextStyle style) {
  switch (style) {
    case TextStyle::kBold:
      return "\033[1m";
    case TextStyle::kRed:
      return "\033[1;31m";
    case TextStyle::kGreen:
      return "\033[1;32m";
    case TextStyle::kYellow:
      return "\033[33m";
  }
  return "";
}

bool IsUnderline(const std::string& line) {
  return line.find("--") != std::string::npos && line.find_first_not_of("- ") == std::string::npos;
}

// Longer words first: replacement takes the longest that fits.
std::string WithColouredVerdicts(const std::string& line) {
  static const auto& styles = *new std::vector<std::pair<std::string, std::string>>{
      {"NOT MET", Styled("NOT MET", TextStyle::kRed)},   {"MET", Styled("MET", TextStyle::kGreen)},
      {"PASSED", Styled("PASSED", TextStyle::kGreen)},   {"FAILED", Styled("FAILED", TextStyle::kRed)},
      {"PROBLEM:", Styled("PROBLEM:", TextStyle::kRed)},
  };
  return absl::StrReplaceAll(line, styles);
}

}  // namespace

bool ColoursAreWanted(bool is_terminal) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return is_terminal && (no_color == nullptr || *no_color == '\0') &&
         (terminal == nullptr || std::string_view(terminal) != "dumb");
}

std::string Styled(std::string_view text, TextStyle style) {
  return absl::StrCat(CodeOf(style), std::string(text), kReset);
}

std::string WithColours(std::string_view text) {
  std::vector<std::string> lines = absl::StrSplit(std::string(text), '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool is_heading = i + 1 < lines.size() && IsUnderline(lines[i + 1]) && !lines[i].empty();
    lines[i] = is_heading ? Styled(lines[i], TextStyle::kBold) : WithColouredVerdicts(lines[i]);
  }
  return absl::StrJoin(lines, "\n");
}

}  // namespace mechinterp
