#include "services/engine/interventions/positions.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"

namespace mechinterp::engine {
namespace {

// Positions of a prompt, added as ranges: a million of them that overlap take no longer than
// they are many.
class Coverage {
 public:
  explicit Coverage(int length) : changes_(length + 1) {}

  void Add(int64_t begin, int64_t end) {
    if (begin < 0 || begin >= end) return;  // the last position of no tokens
    ++changes_[begin];
    --changes_[end];
  }

  std::vector<int> Positions() const {
    std::vector<int> positions;
    int64_t covering = 0;
    for (size_t p = 0; p + 1 < changes_.size(); ++p) {
      covering += changes_[p];
      if (covering > 0) positions.push_back(static_cast<int>(p));
    }
    return positions;
  }

 private:
  std::vector<int64_t> changes_;  // how many ranges begin at a position, less those that end before it
};

void AddNamed(NamedPosition name, const TokenizedPrompt& prompt, const FieldViolations& violations,
              Coverage& out) {
  const int length = prompt.length();
  if (name == NamedPosition::kLast) {
    out.Add(length - 1, length);
    return;
  }
  if (!prompt.last_instruction_position) {
    violations.Add("only a chat prompt that ends with a user message has this position");
    return;
  }
  const int instruction = *prompt.last_instruction_position;
  if (name == NamedPosition::kLastInstruction) {
    out.Add(instruction, instruction + 1);
  } else {
    out.Add(instruction + 1, length);
  }
}

}  // namespace

bool PositionSelector::counts_from_end() const {
  auto negative = [](int index) { return index < 0; };
  return !selects_all() && std::all_of(indices.begin(), indices.end(), negative) &&
         std::all_of(ranges.begin(), ranges.end(), [](const PositionRange& range) {
           return range.start < 0 && (!range.end || *range.end < 0);
         });
}

std::vector<int> ResolvePositions(const PositionSelector& selector, const TokenizedPrompt& prompt,
                                  const FieldViolations& violations) {
  const int length = prompt.length();
  if (selector.selects_all()) {
    std::vector<int> all(length);
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  Coverage covered(length);
  for (size_t i = 0; i < selector.indices.size(); ++i) {
    const int given = selector.indices[i];
    const int64_t position = given < 0 ? int64_t{given} + length : given;
    if (position < 0 || position >= length) {
      violations.At("indices", i)
          .Add(absl::StrCat("position ", given, " is outside the prompt of ", length, " tokens"));
    } else {
      covered.Add(position, position + 1);
    }
  }
  for (size_t i = 0; i < selector.ranges.size(); ++i) {
    const PositionRange& range = selector.ranges[i];
    const int64_t start = range.start < 0 ? int64_t{range.start} + length : range.start;
    const int64_t end = !range.end ? length : (*range.end < 0 ? int64_t{*range.end} + length : *range.end);
    if (start < 0 || end > length || start >= end) {
      violations.At("ranges", i)
          .Add(
              absl::StrCat("[", start, ", ", end, ") is empty or outside the prompt of ", length, " tokens"));
      continue;
    }
    covered.Add(start, end);
  }
  for (size_t i = 0; i < selector.named.size(); ++i) {
    AddNamed(selector.named[i], prompt, violations.At("named", i), covered);
  }
  return covered.Positions();
}

}  // namespace mechinterp::engine
