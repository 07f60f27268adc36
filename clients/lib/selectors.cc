#include "clients/lib/selectors.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr int64_t kMostIndices = 1 << 20;  // A mistyped range must not eat the memory.

// An empty part is an error: it is a word left out, and nothing would mean all.
absl::StatusOr<std::vector<std::string>> Parts(std::string_view text) {
  std::vector<std::string> parts = absl::StrSplit(std::string(text), ',');
  for (std::string& part : parts) {
    absl::StripAsciiWhitespace(&part);
    if (part.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", std::string(text), "\" has an empty part"));
    }
  }
  return parts;
}

absl::StatusOr<int32_t> Number(const std::string& text, const std::string& part) {
  int32_t value = 0;
  if (absl::SimpleAtoi(text, &value)) return value;
  return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not an index or a range of indices"));
}

bool AddNamed(const std::string& name, v1::PositionSelector& selector) {
  if (name == "last") {
    selector.add_named(v1::NAMED_POSITION_LAST);
  } else if (name == "last-instruction") {
    selector.add_named(v1::NAMED_POSITION_LAST_INSTRUCTION);
  } else if (name == "tail") {
    selector.add_named(v1::NAMED_POSITION_TEMPLATE_TAIL);
  } else if (name == "decision") {
    selector.add_named(v1::NAMED_POSITION_LAST_INSTRUCTION);
    selector.add_named(v1::NAMED_POSITION_TEMPLATE_TAIL);
  } else {
    return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<v1::PositionSelector> ParsePositions(std::string_view text) {
  v1::PositionSelector selector;
  if (text.empty() || text == "all") return selector;
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(text));
  for (const std::string& part : parts) {
    if (AddNamed(part, selector)) continue;
    const size_t colon = part.find(':');
    if (colon == std::string::npos) {
      ABSTRACT_ASSIGN_OR_RETURN(const int32_t index, Number(part, part));
      selector.add_indices(index);
      continue;
    }
    v1::PositionRange& range = *selector.add_ranges();
    if (colon > 0) {
      ABSTRACT_ASSIGN_OR_RETURN(const int32_t start, Number(part.substr(0, colon), part));
      range.set_start(start);
    }
    if (colon + 1 < part.size()) {
      ABSTRACT_ASSIGN_OR_RETURN(const int32_t end, Number(part.substr(colon + 1), part));
      range.set_end(end);
    }
  }
  return selector;
}

absl::StatusOr<std::vector<uint32_t>> ParseIndices(std::string_view text) {
  std::vector<uint32_t> indices;
  if (text.empty()) return indices;
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(text));
  for (const std::string& part : parts) {
    const size_t colon = part.find(':');
    ABSTRACT_ASSIGN_OR_RETURN(const int64_t begin, Number(part.substr(0, colon), part));
    int64_t end = begin + 1;
    if (colon != std::string::npos) {
      ABSTRACT_ASSIGN_OR_RETURN(end, Number(part.substr(colon + 1), part));
    }
    if (begin < 0 || end <= begin || end - begin > kMostIndices) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is not an index or a range of indices"));
    }
    for (int64_t i = begin; i < end; ++i) indices.push_back(static_cast<uint32_t>(i));
  }
  return indices;
}

}  // namespace mechinterp
