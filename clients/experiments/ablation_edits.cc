#include "clients/experiments/ablation_edits.h"

#include <algorithm>
#include <map>
#include <utility>

namespace mechinterp {
namespace {

// The ablated heads or neurons of each layer: (point, layer) to indices.
using Parts = std::map<std::pair<v1::HookPoint, uint32_t>, std::vector<uint32_t>>;

Parts PartsOf(absl::Span<const v1::Component> components) {
  Parts parts;
  for (const v1::Component& component : components) {
    if (component.kind() == v1::COMPONENT_KIND_HEAD) {
      parts[{v1::HOOK_POINT_Z, component.layer()}].push_back(component.head());
      continue;
    }
    std::vector<uint32_t>& neurons = parts[{v1::HOOK_POINT_MLP_POST, component.layer()}];
    for (uint32_t i = component.neuron_begin(); i < component.neuron_end(); ++i) neurons.push_back(i);
  }
  for (auto& [site, indices] : parts) std::sort(indices.begin(), indices.end());
  return parts;
}

v1::Intervention Select(const Parts::value_type& part, v1::InterventionScope scope,
                        const std::vector<int32_t>& positions) {
  v1::Intervention intervention;
  intervention.mutable_site()->set_point(part.first.first);
  intervention.mutable_site()->set_layer(part.first.second);
  v1::Selector& selector = *intervention.mutable_selector();
  auto& indices = part.first.first == v1::HOOK_POINT_Z ? *selector.mutable_heads() : *selector.mutable_dims();
  indices.Add(part.second.begin(), part.second.end());
  selector.set_scope(scope);
  if (!positions.empty()) {
    selector.mutable_positions()->mutable_indices()->Add(positions.begin(), positions.end());
  }
  return intervention;
}

template <typename Edit>
void AddSources(const std::vector<std::string>& handles, Edit& edit) {
  for (const std::string& handle : handles) edit.add_sources()->mutable_stored()->set_handle(handle);
}

void SetMean(const AblationEdit& edit, v1::MeanAxis axis, v1::Intervention& intervention) {
  v1::MeanReplacement& mean = *intervention.mutable_mean_replacement();
  mean.set_axis(axis);
  AddSources(edit.handles, mean);
}

void SetResampling(const AblationEdit& edit, v1::Intervention& intervention) {
  v1::Resampling& resampling = *intervention.mutable_resampling();
  resampling.set_seed(edit.seed);
  AddSources(edit.handles, resampling);
}

}  // namespace

std::vector<v1::Intervention> AblationInterventions(absl::Span<const v1::Component> components,
                                                    const AblationEdit& edit) {
  std::vector<v1::Intervention> interventions;
  const auto add = [&](const Parts::value_type& part, v1::InterventionScope scope) -> v1::Intervention& {
    const bool has_prompt = scope != v1::INTERVENTION_SCOPE_GENERATED;
    interventions.push_back(Select(part, scope, has_prompt ? edit.positions : std::vector<int32_t>()));
    return interventions.back();
  };
  for (const auto& part : PartsOf(components)) {
    if (edit.method == v1::ABLATION_METHOD_ZERO) {
      add(part, v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED).mutable_zeroing();
      continue;
    }
    if (edit.method == v1::ABLATION_METHOD_RESAMPLE) {
      SetResampling(edit, add(part, v1::INTERVENTION_SCOPE_PROMPT));
    } else if (!edit.positions.empty()) {
      SetMean(edit, v1::MEAN_AXIS_SOURCES, add(part, v1::INTERVENTION_SCOPE_PROMPT));
    } else {
      SetMean(edit, v1::MEAN_AXIS_UNSPECIFIED, add(part, v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED));
      continue;
    }
    SetMean(edit, v1::MEAN_AXIS_UNSPECIFIED, add(part, v1::INTERVENTION_SCOPE_GENERATED));
  }
  return interventions;
}

std::string_view MethodName(v1::AblationMethod method) {
  switch (method) {
    case v1::ABLATION_METHOD_ZERO:
      return "zero";
    case v1::ABLATION_METHOD_RESAMPLE:
      return "resample";
    default:
      return "mean";
  }
}

}  // namespace mechinterp
