#ifndef SERVICES_ENGINE_INTERVENTIONS_APPLY_HOOKS_H_
#define SERVICES_ENGINE_INTERVENTIONS_APPLY_HOOKS_H_

#include <cstdint>

#include "services/engine/interventions/hook_plan.h"

namespace mechinterp::engine {

// Which part of an activation a segment's rows are: [rows, heads, width],
// contiguous fp32 in host memory. Row i is absolute position first_position + i.
struct RowsLayout {
  int first_position = 0;
  int64_t rows = 0;
  int64_t heads = 1;
  int64_t width = 1;
};

// Applies an edit to the rows it touches. The result for an element does not
// depend on which other rows are there.
void ApplyEdit(const CompiledEdit& edit, int prompt_length, float* data, const RowsLayout& rows);

// Takes a gradient with respect to what the edit leaves to one with respect to what it is given,
// in place: through what is added or scaled, and not to what is replaced.
void ApplyTransposedEdit(const CompiledEdit& edit, int prompt_length, float* data, const RowsLayout& rows);

// Appends the captured rows to `recorded`.
void Capture(const CompiledCapture& capture, const float* data, const RowsLayout& rows,
             RecordedActivation& recorded);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_APPLY_HOOKS_H_
