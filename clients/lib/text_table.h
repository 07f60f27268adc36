#ifndef CLIENTS_LIB_TEXT_TABLE_H_
#define CLIENTS_LIB_TEXT_TABLE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mechinterp {

// A table of text for a terminal: columns as wide as they need, the first
// aligned left and the others right unless told otherwise.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : rows_{std::move(header)} {}

  // Aligns these columns left.
  TextTable& AlignLeft(const std::vector<size_t>& columns) {
    left_.insert(left_.end(), columns.begin(), columns.end());
    return *this;
  }
  // Missing cells are empty.
  void AddRow(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // Lines that end in '\n', the header underlined.
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<size_t> left_ = {0};
};

// `text` on one line of at most `max_characters`, line breaks shown as spaces,
// "..." at the end when something was cut. Never cuts a UTF-8 character.
std::string OneLine(std::string_view text, size_t max_characters);

// A token's text in quotes, so that its spaces show, with \n, \r and \t for line breaks and tabs; cut
// likewise.
std::string Visible(std::string_view text, size_t max_characters = std::string_view::npos);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_TEXT_TABLE_H_
