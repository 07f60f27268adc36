#include "services/engine/interventions/apply_hooks.h"

#include <algorithm>
#include <vector>

#include "services/common/overloaded.h"
#include "services/engine/base/random.h"

namespace mechinterp::engine {
namespace {

// The selected part of one head of one row.
struct Slice {
  float* data;  // the head's `width` values
  const std::vector<int>& dims;
  int64_t width;

  int64_t size() const { return dims.empty() ? width : static_cast<int64_t>(dims.size()); }
  int64_t Index(int64_t i) const { return dims.empty() ? i : dims[i]; }
  float& operator[](int64_t i) const { return data[Index(i)]; }
};

void RemoveComponent(const BroadcastValues& direction, int64_t h, const Slice& slice) {
  double dot = 0;
  for (int64_t i = 0; i < slice.size(); ++i) dot += double{slice[i]} * direction.At(0, h, i);
  for (int64_t i = 0; i < slice.size(); ++i) slice[i] -= static_cast<float>(dot * direction.At(0, h, i));
}

void Change(const CompiledEdit& edit, int64_t p, int64_t h, uint64_t row_key, const Slice& slice) {
  std::visit(Overloaded{
                 [&](const SetValues& set) {
                   for (int64_t i = 0; i < slice.size(); ++i) slice[i] = set.values.At(p, h, i);
                 },
                 [&](const AddValues& add) {
                   for (int64_t i = 0; i < slice.size(); ++i) slice[i] += add.scale * add.values.At(p, h, i);
                 },
                 [&](const Multiply& multiply) {
                   for (int64_t i = 0; i < slice.size(); ++i) slice[i] *= multiply.factor;
                 },
                 [&](const RemoveProjection& removal) { RemoveComponent(removal.direction, h, slice); },
                 [&](const AddNoise& noise) {
                   for (int64_t i = 0; i < slice.size(); ++i) {
                     slice[i] += static_cast<float>(noise.standard_deviation *
                                                    RandomNormal(noise.seed, row_key, slice.Index(i)));
                   }
                 },
             },
             edit.change);
}

}  // namespace

void ApplyEdit(const CompiledEdit& edit, int prompt_length, float* data, const RowsLayout& rows) {
  for (int64_t row = 0; row < rows.rows; ++row) {
    const int position = rows.first_position + static_cast<int>(row);
    int64_t p = 0;
    if (position >= prompt_length) {
      if (!edit.generated) continue;
    } else {
      auto found = std::lower_bound(edit.positions.begin(), edit.positions.end(), position);
      if (found == edit.positions.end() || *found != position) continue;
      p = found - edit.positions.begin();
    }
    for (size_t h = 0; h < edit.heads.size(); ++h) {
      const int head = edit.heads[h];
      // Noise differs between sites, positions and heads, and nothing else. The point by its
      // number on the wire, less one, as noise was published first.
      const uint64_t row_key = (static_cast<uint64_t>(WireNumber(edit.site.point) - 1) << 56) ^
                               (static_cast<uint64_t>(edit.site.layer) << 40) ^
                               (static_cast<uint64_t>(head) << 28) ^ static_cast<uint64_t>(position);
      Change(edit, p, static_cast<int64_t>(h), row_key,
             Slice{data + (row * rows.heads + head) * rows.width, edit.dims, rows.width});
    }
  }
}

void ApplyTransposedEdit(const CompiledEdit& edit, int prompt_length, float* data, const RowsLayout& rows) {
  if (std::holds_alternative<AddValues>(edit.change) || std::holds_alternative<AddNoise>(edit.change)) return;
  if (!std::holds_alternative<SetValues>(edit.change)) {  // its matrix is symmetric
    ApplyEdit(edit, prompt_length, data, rows);
    return;
  }
  CompiledEdit zero;
  zero.site = edit.site;
  zero.positions = edit.positions;
  zero.generated = edit.generated;
  zero.heads = edit.heads;
  zero.dims = edit.dims;
  zero.change = SetValues{{HostTensor{{1, 1, 1}, {0}}}};
  ApplyEdit(zero, prompt_length, data, rows);
}

void Capture(const CompiledCapture& capture, const float* data, const RowsLayout& rows,
             RecordedActivation& recorded) {
  const int64_t row_size = rows.heads * rows.width;
  const int end = rows.first_position + static_cast<int>(rows.rows);
  if (recorded.positions.empty()) {
    recorded.values.values.reserve(capture.positions.size() * row_size);  // growing would take twice as much
    recorded.positions.reserve(capture.positions.size());
  }
  auto it = std::lower_bound(capture.positions.begin(), capture.positions.end(), rows.first_position);
  for (; it != capture.positions.end() && *it < end; ++it) {
    const float* row = data + (*it - rows.first_position) * row_size;
    recorded.values.values.insert(recorded.values.values.end(), row, row + row_size);
    recorded.positions.push_back(*it);
  }
  recorded.values.shape = {static_cast<int64_t>(recorded.positions.size()), rows.heads, rows.width};
}

}  // namespace mechinterp::engine
