#include "clients/experiments/patching_sweeps.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/ranking.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

void AddAxes(SweepFamily family, int neurons_per_group, v1::SweepGrid& grid) {
  switch (family) {
    case SweepFamily::kResidual:
      grid.add_points(v1::HOOK_POINT_RESID_PRE);
      grid.add_points(v1::HOOK_POINT_ATTN_OUT);
      grid.add_points(v1::HOOK_POINT_MLP_OUT);
      grid.add_axes(v1::SWEEP_AXIS_POSITION);
      break;
    case SweepFamily::kHeads:
      grid.add_points(v1::HOOK_POINT_Z);
      grid.add_axes(v1::SWEEP_AXIS_HEAD);
      break;
    case SweepFamily::kNeurons:
      grid.add_points(v1::HOOK_POINT_MLP_POST);
      grid.add_axes(v1::SWEEP_AXIS_DIM_GROUP);
      grid.set_dims_per_group(static_cast<uint32_t>(neurons_per_group));
      break;
  }
}

// Unspecified for points that the experiment does not patch.
v1::ComponentKind KindOf(v1::HookPoint point) {
  switch (point) {
    case v1::HOOK_POINT_RESID_PRE:
      return v1::COMPONENT_KIND_RESID_PRE;
    case v1::HOOK_POINT_ATTN_OUT:
      return v1::COMPONENT_KIND_ATTN_OUT;
    case v1::HOOK_POINT_MLP_OUT:
      return v1::COMPONENT_KIND_MLP_OUT;
    case v1::HOOK_POINT_Z:
      return v1::COMPONENT_KIND_HEAD;
    case v1::HOOK_POINT_MLP_POST:
      return v1::COMPONENT_KIND_NEURON_GROUP;
    default:
      return v1::COMPONENT_KIND_UNSPECIFIED;
  }
}

}  // namespace

SweepFamily FamilyOf(v1::ComponentKind kind) {
  if (kind == v1::COMPONENT_KIND_HEAD) return SweepFamily::kHeads;
  return kind == v1::COMPONENT_KIND_NEURON_GROUP ? SweepFamily::kNeurons : SweepFamily::kResidual;
}

std::string_view SweepFamilyName(SweepFamily family) {
  switch (family) {
    case SweepFamily::kHeads:
      return "heads";
    case SweepFamily::kNeurons:
      return "neurons";
    default:
      return "residual";
  }
}

std::string_view DirectionName(v1::PatchDirection direction) {
  return direction == v1::PATCH_DIRECTION_NOISING ? "noising" : "denoising";
}

v1::PromptClass TargetClass(v1::PatchDirection direction) {
  return direction == v1::PATCH_DIRECTION_NOISING ? v1::PROMPT_CLASS_HARMFUL : v1::PROMPT_CLASS_HARMLESS;
}

v1::PromptClass SourceClass(v1::PatchDirection direction) {
  return direction == v1::PATCH_DIRECTION_NOISING ? v1::PROMPT_CLASS_HARMLESS : v1::PROMPT_CLASS_HARMFUL;
}

v1::RunPatchSweepRequest MakeSweep(SweepFamily family, const PromptPair& pair, v1::PatchDirection direction,
                                   const std::vector<int32_t>& positions, int neurons_per_group,
                                   const MetricTokens& tokens) {
  const v1::Prompt source = UserPrompt(pair.prompt(SourceClass(direction)));
  v1::RunPatchSweepRequest request;
  *request.mutable_prompt() = UserPrompt(pair.prompt(TargetClass(direction)));
  *request.mutable_source_prompt() = source;
  *request.mutable_metrics() = MetricOptionsOf(tokens);
  v1::SweepGrid& grid = *request.mutable_grid();
  AddAxes(family, neurons_per_group, grid);
  v1::Intervention& prototype = *grid.mutable_prototype();
  if (!positions.empty()) {
    prototype.mutable_selector()->mutable_positions()->mutable_indices()->Add(positions.begin(),
                                                                              positions.end());
  }
  *prototype.mutable_replacement()->mutable_source()->mutable_prompt()->mutable_prompt() = source;
  return request;
}

absl::StatusOr<v1::Component> ComponentOf(const v1::SweepSite& site, int prompt_length) {
  v1::Component component;
  component.set_kind(KindOf(site.site().point()));
  component.set_layer(site.site().layer());
  if (site.has_position()) component.set_position(static_cast<int32_t>(site.position()) - prompt_length);
  if (site.has_head()) component.set_head(site.head());
  if (site.has_dim_begin()) component.set_neuron_begin(site.dim_begin());
  if (site.has_dim_end()) component.set_neuron_end(site.dim_end());
  const bool is_split = component.kind() == v1::COMPONENT_KIND_HEAD           ? site.has_head()
                        : component.kind() == v1::COMPONENT_KIND_NEURON_GROUP ? site.has_dim_begin()
                                                                              : site.has_position();
  if (component.kind() == v1::COMPONENT_KIND_UNSPECIFIED || !is_split) {
    return absl::InternalError(
        absl::StrCat("the sweep patched something else than was asked for: ", site.ShortDebugString()));
  }
  component.set_name(ComponentName(component));
  return component;
}

absl::StatusOr<v1::PatchingResults> EffectsOf(const Sweep& sweep, v1::PatchDirection direction) {
  if (sweep.header.sites_size() != static_cast<int>(sweep.results.size())) {
    return absl::DataLossError("RunPatchSweep: the header does not tell what each run patched");
  }
  v1::PatchingResults part;
  part.set_run_count(static_cast<uint32_t>(sweep.results.size()));
  for (int i = 0; i < sweep.header.sites_size(); ++i) {
    ABSTRACT_ASSIGN_OR_RETURN(*part.add_effects()->mutable_component(),
                              ComponentOf(sweep.header.sites(i), sweep.header.prompt_token_ids_size()));
    v1::ComponentEffect& effect = *part.mutable_effects(i);
    effect.set_direction(direction);
    const v1::SweepResult& result = sweep.results[static_cast<size_t>(i)];
    // Adding 0 turns -0 into 0, which JSON, and so the journal, does not tell apart.
    if (result.has_effect()) effect.add_pair_effects(result.effect() + 0.0);
  }
  return part;
}

}  // namespace mechinterp
