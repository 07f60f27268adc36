#include "clients/lib/csv.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Reads a row after another.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
  }

  bool AtEnd() const { return at_ == text_.size(); }
  int line() const { return line_; }

  absl::StatusOr<std::vector<std::string>> Row() {
    std::vector<std::string> cells;
    do {
      ABSTRACT_ASSIGN_OR_RETURN(std::string cell, Cell());
      cells.push_back(std::move(cell));
    } while (Take(','));
    Take('\r');
    if (!AtEnd() && !Take('\n')) return Error("text after a quote that ends a cell");
    ++line_;
    return cells;
  }

 private:
  absl::StatusOr<std::string> Cell() {
    if (Take('"')) return Quoted();
    const size_t begin = at_;
    while (!AtEnd() && text_[at_] != ',' && text_[at_] != '\n' && !EndsHere()) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  // At CRLF; a CR elsewhere is text.
  bool EndsHere() const { return text_[at_] == '\r' && (at_ + 1 == text_.size() || text_[at_ + 1] == '\n'); }

  absl::StatusOr<std::string> Quoted() {
    const int first_line = line_;
    std::string cell;
    while (!AtEnd()) {
      const char c = text_[at_++];
      if (c == '\n') ++line_;
      if (c == '\r' && !AtEnd() && text_[at_] == '\n') continue;  // a line break is one in every copy
      if (c != '"') {
        cell += c;
      } else if (Take('"')) {
        cell += '"';
      } else {
        return cell;
      }
    }
    line_ = first_line;
    return Error("a quote that does not end");
  }

  bool Take(char c) {
    if (AtEnd() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", std::string(what)));
  }

  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
};

bool IsBlank(const std::vector<std::string>& cells) {
  return cells.size() == 1 && absl::StripAsciiWhitespace(cells[0]).empty();
}

}  // namespace

absl::StatusOr<CsvTable> CsvTable::Parse(std::string_view text) {
  CsvTable table;
  Reader reader(text);
  while (!reader.AtEnd()) {
    const int line = reader.line();
    ABSTRACT_ASSIGN_OR_RETURN(std::vector<std::string> cells, reader.Row());
    if (IsBlank(cells)) continue;
    if (table.columns_.empty()) {
      for (std::string& cell : cells) table.columns_.emplace_back(absl::StripAsciiWhitespace(cell));
      continue;
    }
    if (cells.size() > table.columns_.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line, ": ", cells.size(), " cells in ", table.columns_.size(), " columns"));
    }
    cells.resize(table.columns_.size());
    table.rows_.push_back(std::move(cells));
  }
  return table;
}

std::optional<size_t> CsvTable::Find(std::string_view column) const {
  for (size_t i = 0; i < columns_.size(); ++i) {
    if (absl::EqualsIgnoreCase(columns_[i], absl::string_view(column.data(), column.size()))) return i;
  }
  return std::nullopt;
}

}  // namespace mechinterp
