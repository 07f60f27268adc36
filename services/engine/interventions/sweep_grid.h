#ifndef SERVICES_ENGINE_INTERVENTIONS_SWEEP_GRID_H_
#define SERVICES_ENGINE_INTERVENTIONS_SWEEP_GRID_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// A family of single interventions; see SweepGrid of the API.
struct SweepGrid {
  Intervention prototype;  // its site is ignored
  std::vector<HookPoint> points;
  std::vector<int> layers;  // empty: all
  bool split_positions = false;
  bool split_heads = false;
  int dims_per_group = 0;  // 0: not split
};

// What one member touches; unset where the grid does not split.
struct SweepSite {
  HookSite site;
  std::optional<int> position;
  std::optional<int> head;
  std::optional<int> dim_begin;
  std::optional<int> dim_end;
};

struct ExpandedGrid {
  std::vector<InterventionSet> sets;
  std::vector<SweepSite> sites;  // of each set
};

// The members in the order point, layer, position, head, group, last fastest; each axis
// ascending and each of its values once, in whatever order and how often they are
// listed. A group is of neighbours: where the prototype's dims have a gap, one ends.
// FieldViolations are added by field path within the grid ("points[1]"); what is wrong
// with the prototype's edit is found when the sets are compiled. A split
// position is written as distance from the end where the prototype's selector
// counts from the end, so that it means the same in a source of other length.
ExpandedGrid ExpandGrid(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt,
                        const FieldViolations& violations);

// About the memory that ExpandGrid's sets and their compiled plans take; expands nothing.
int64_t ExpandedGridBytes(const SweepGrid& grid, const ModelConfig& config, const TokenizedPrompt& prompt);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_SWEEP_GRID_H_
