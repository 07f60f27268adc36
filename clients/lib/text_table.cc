#include "clients/lib/text_table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/common/text.h"

namespace mechinterp {

std::string TextTable::ToString() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], CharacterCount(row[i]));
  }
  std::string text;
  const auto add_line = [&](const auto& cell) {
    std::string line;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string content = cell(i);
      const std::string padding(widths[i] - CharacterCount(content), ' ');
      const bool left = std::find(left_.begin(), left_.end(), i) != left_.end();
      absl::StrAppend(&line, i > 0 ? "  " : "", left ? content : padding, left ? padding : content);
    }
    absl::StripTrailingAsciiWhitespace(&line);
    absl::StrAppend(&text, line, "\n");
  };
  for (size_t r = 0; r < rows_.size(); ++r) {
    add_line([&](size_t i) { return i < rows_[r].size() ? rows_[r][i] : std::string(); });
    if (r == 0) add_line([&](size_t i) { return std::string(widths[i], '-'); });
  }
  return text;
}

std::string OneLine(std::string_view text, size_t max_characters) {
  std::string line(text);
  for (char& c : line) {
    if (absl::ascii_isspace(c) || absl::ascii_iscntrl(c)) c = ' ';
  }
  if (CharacterCount(line) <= max_characters) return line;
  return std::string(FirstCharacters(line, max_characters - 3)) + "...";
}

std::string Visible(std::string_view text, size_t max_characters) {
  std::string visible;
  for (const char c : text) {
    if (c == '\n') {
      visible += "\\n";
    } else if (c == '\t') {
      visible += "\\t";
    } else if (c == '\r') {
      visible += "\\r";
    } else {
      visible += c;
    }
  }
  if (CharacterCount(visible) > max_characters) {
    visible = std::string(FirstCharacters(visible, max_characters - 3)) + "...";
  }
  return absl::StrCat("\"", visible, "\"");
}

}  // namespace mechinterp
