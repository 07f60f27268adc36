#include "services/engine/interventions/positions.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"

namespace mechinterp::engine {
namespace {

void AddNamed(NamedPosition name, const TokenizedPrompt& prompt, const FieldViolations& violations,
              std::set<int>& out) {
  const int length = prompt.length();
  if (name == NamedPosition::kLast) {
    out.insert(length - 1);
    return;
  }
  if (!prompt.last_instruction_position) {
    violations.Add("only a chat prompt that ends with a user message has this position");
    return;
  }
  const int instruction = *prompt.last_instruction_position;
  if (name == NamedPosition::kLastInstruction) {
    out.insert(instruction);
  } else {
    for (int p = instruction + 1; p < length; ++p) out.insert(p);
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
  std::set<int> positions;
  for (size_t i = 0; i < selector.indices.size(); ++i) {
    const int given = selector.indices[i];
    const int64_t position = given < 0 ? int64_t{given} + length : given;
    if (position < 0 || position >= length) {
      violations.At("indices", i)
          .Add(absl::StrCat("position ", given, " is outside the prompt of ", length, " tokens"));
    } else {
      positions.insert(static_cast<int>(position));
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
    for (int64_t p = start; p < end; ++p) positions.insert(static_cast<int>(p));
  }
  for (size_t i = 0; i < selector.named.size(); ++i) {
    AddNamed(selector.named[i], prompt, violations.At("named", i), positions);
  }
  return {positions.begin(), positions.end()};
}

}  // namespace mechinterp::engine
