#ifndef CLIENTS_LIB_CSV_H_
#define CLIENTS_LIB_CSV_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace mechinterp {

// A table of texts with named columns, from comma-separated values (RFC 4180): quoted cells may hold
// commas, quotes ("") and line breaks, which become LF; lines end with LF or CRLF; a byte order mark is
// skipped, and so are lines without anything.
class CsvTable {
 public:
  // InvalidArgument, with the line, for a quote that does not end, text after one that does, and rows
  // that have more cells than there are columns; missing ones at a row's end are empty.
  static absl::StatusOr<CsvTable> Parse(std::string_view text);

  const std::vector<std::string>& columns() const { return columns_; }
  const std::vector<std::vector<std::string>>& rows() const { return rows_; }
  // A column's index by name, whatever the case of its letters.
  std::optional<size_t> Find(std::string_view column) const;

 private:
  std::vector<std::string> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_CSV_H_
