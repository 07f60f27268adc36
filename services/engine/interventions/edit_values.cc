#include "services/engine/interventions/edit_values.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace mechinterp::engine {
namespace {

std::string ExpectedShapes(const PartSize& part) {
  if (part.has_head_axis) {
    return absl::StrCat("[", part.positions, ", ", part.heads, ", ", part.width, "], [1, ", part.heads, ", ",
                        part.width, "], [", part.heads, ", ", part.width, "] or [", part.width, "]");
  }
  return absl::StrCat("[", part.positions, ", ", part.width, "], [1, ", part.width, "] or [", part.width,
                      "]");
}

// A row of the activation that a use reads, of one head; at its i-th position.
const float* RowOf(const SourceUse& use, size_t i, int head,
                   const std::vector<std::shared_ptr<const RecordedRun>>& runs) {
  const RecordedRun& run = use.run ? *use.run : *runs[use.run_index];
  const RecordedActivation& recorded = run.activations.at(use.site);
  const int64_t row =
      std::lower_bound(recorded.positions.begin(), recorded.positions.end(), use.positions[i]) -
      recorded.positions.begin();
  return recorded.values.values.data() + (row * recorded.values.shape[1] + head) * recorded.values.shape[2];
}

}  // namespace

BroadcastValues ReadDifference(const PendingEdit& pending,
                               const std::vector<std::shared_ptr<const RecordedRun>>& runs) {
  const SourceUse &source = pending.uses.at(0), &clean = pending.uses.at(1);
  const RecordedRun& run = clean.run ? *clean.run : *runs[clean.run_index];
  const int64_t width = run.activations.at(clean.site).values.shape[2];
  const auto count = static_cast<int64_t>(clean.positions.size());
  BroadcastValues result{{{count, 1, width}, std::vector<float>(count * width)}};
  for (size_t i = 0; i < clean.positions.size(); ++i) {
    const float* after = RowOf(source, i, pending.sender_head, runs);
    const float* before = RowOf(clean, i, pending.sender_head, runs);
    for (int64_t j = 0; j < width; ++j) result.values.values[i * width + j] = after[j] - before[j];
  }
  return result;
}

BroadcastValues BroadcastTensor(const HostTensor& tensor, const PartSize& part,
                                const FieldViolations& violations) {
  BroadcastValues result{tensor};
  std::vector<int64_t>& shape = result.values.shape;
  if (shape.size() == 1) {
    shape = {1, 1, shape[0]};
  } else if (shape.size() == 2) {
    shape = part.has_head_axis ? std::vector<int64_t>{1, shape[0], shape[1]}
                               : std::vector<int64_t>{shape[0], 1, shape[1]};
  }
  const bool fits = shape.size() == 3 && (shape[0] == 1 || shape[0] == part.positions) &&
                    (shape[1] == 1 || shape[1] == part.heads) && shape[2] == part.width;
  const bool unread = tensor.shape.empty() && tensor.values.empty();  // whoever read it said so
  if (!fits && !unread) {
    violations.At("shape").Add(absl::StrCat("is [", absl::StrJoin(tensor.shape, ", "),
                                            "]; the selected part takes ", ExpectedShapes(part)));
  }
  return result;
}

BroadcastValues UnitDirection(BroadcastValues direction, const FieldViolations& violations) {
  if (direction.values.shape.size() != 3) return direction;  // reported by BroadcastTensor
  const int64_t width = direction.values.shape.back();
  std::vector<float>& values = direction.values.values;
  for (size_t begin = 0; begin < values.size(); begin += width) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += double{values[begin + i]} * values[begin + i];
    if (squares == 0) {
      violations.Add("the direction is zero");
      return direction;
    }
    const double norm = std::sqrt(squares);
    for (int64_t i = 0; i < width; ++i) values[begin + i] = static_cast<float>(values[begin + i] / norm);
  }
  return direction;
}

BroadcastValues ReadSources(const PendingEdit& pending,
                            const std::vector<std::shared_ptr<const RecordedRun>>& runs) {
  const std::vector<int>& heads = pending.edit.heads;
  const std::vector<int>& dims = pending.edit.dims;
  const bool pooled = pending.fill == PendingEdit::Fill::kPooled;
  const int64_t rows = pooled ? 1 : static_cast<int64_t>(pending.uses.front().positions.size());
  int64_t width = 0, row_size = 0;
  std::vector<double> sums;
  std::vector<int64_t> counts(rows, 0);

  for (const SourceUse& use : pending.uses) {
    const RecordedRun& run = use.run ? *use.run : *runs[use.run_index];
    const RecordedActivation& recorded = run.activations.at(use.site);
    const int64_t full_heads = recorded.values.shape[1], full_width = recorded.values.shape[2];
    width = dims.empty() ? full_width : static_cast<int64_t>(dims.size());
    row_size = static_cast<int64_t>(heads.size()) * width;
    sums.resize(rows * row_size, 0);
    for (size_t i = 0; i < use.positions.size(); ++i) {
      if (use.positions[i] < 0) continue;
      const int64_t row = pooled ? 0 : static_cast<int64_t>(i);
      const int64_t source_row =
          std::lower_bound(recorded.positions.begin(), recorded.positions.end(), use.positions[i]) -
          recorded.positions.begin();
      double* sum = sums.data() + row * row_size;
      for (int head : heads) {
        const float* values = recorded.values.values.data() + (source_row * full_heads + head) * full_width;
        for (int64_t w = 0; w < width; ++w) *sum++ += values[dims.empty() ? w : dims[w]];
      }
      ++counts[row];
    }
  }

  BroadcastValues result{{{rows, static_cast<int64_t>(heads.size()), width}, {}}};
  result.values.values.resize(sums.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = row * row_size; i < (row + 1) * row_size; ++i) {
      result.values.values[i] = static_cast<float>(sums[i] / static_cast<double>(counts[row]));
    }
  }
  return result;
}

}  // namespace mechinterp::engine
