#include "services/analysis/dashboard.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "services/analysis/assets.h"
#include "services/analysis/circuit.h"
#include "services/common/proto_json.h"
#include "services/common/ranking.h"
#include "services/common/status_macros.h"
#include "services/common/text.h"

namespace mechinterp {
namespace {

constexpr int kComponentsInCircuit = 12;
constexpr int kEdgesInCircuit = 24;
constexpr int kCircuitRows = 1000;  // of nodes, edges and members left out
constexpr int kComponentsInTable = 20;
constexpr int kResponses = 1000;  // the page shows sixty, those first that the ablated model answered too
constexpr size_t kOpeningBytes = 160;
constexpr size_t kPromptBytes = 2000;
constexpr size_t kMaxDataBytes = 32 << 20;

template <typename Entry>
void KeepFirst(int count, google::protobuf::RepeatedPtrField<Entry>& entries) {
  if (entries.size() > count) entries.DeleteSubrange(count, entries.size() - count);
}

void KeepOpening(v1::JudgedResponse& response) {
  response.set_response(Shortened(response.response(), kOpeningBytes, "…"));
  response.set_prompt(Shortened(response.prompt(), kPromptBytes, "…"));
}

void SlimBaseline(v1::BaselineResults& baseline) {
  KeepFirst(kResponses, *baseline.mutable_responses());
  for (v1::JudgedResponse& response : *baseline.mutable_responses()) KeepOpening(response);
}

void DropPairs(v1::PatchingResults& patching) {
  for (v1::ComponentEffect& effect : *patching.mutable_effects()) {
    effect.clear_pair_effects();
    effect.clear_pair_indices();
  }
}

// Of a ranked study. Neuron groups, the most by far, have no map of their effects.
void SlimPatching(v1::PatchingResults& patching) {
  auto& effects = *patching.mutable_effects();
  const auto shown = std::remove_if(effects.begin(), effects.end(), [](const v1::ComponentEffect& effect) {
    return effect.component().kind() == v1::COMPONENT_KIND_NEURON_GROUP;
  });
  KeepFirst(static_cast<int>(shown - effects.begin()), effects);
  KeepFirst(kComponentsInTable, *patching.mutable_ranking());
}

// The curve and point whose samples are shown: the ones that the criterion
// judges.
bool IsShown(const v1::AblationResults& ablation, int curve, const v1::AblationPoint& point) {
  return curve == 0 && point.component_count() == ablation.criterion().component_count();
}

void SlimAblation(v1::AblationResults& ablation) {
  for (int i = 0; i < ablation.curves_size(); ++i) {
    for (v1::AblationPoint& point : *ablation.mutable_curves(i)->mutable_top()) {
      point.clear_components();
      if (!IsShown(ablation, i, point)) point.clear_samples();
      for (v1::JudgedResponse& sample : *point.mutable_samples()) KeepOpening(sample);
    }
  }
  if (ablation.has_held_out_baseline()) ablation.mutable_held_out_baseline()->clear_samples();
  if (ablation.has_held_out_top()) {
    ablation.mutable_held_out_top()->clear_samples();
    ablation.mutable_held_out_top()->clear_components();
  }
}

template <typename Entry>
void KeepLargest(int count, google::protobuf::RepeatedPtrField<Entry>& entries) {
  std::stable_sort(entries.pointer_begin(), entries.pointer_end(),
                   [](const Entry* a, const Entry* b) { return SizeOf(*a) > SizeOf(*b); });
  KeepFirst(count, entries);
}

void SlimCircuit(v1::CircuitResults& circuit) {
  KeepLargest(kCircuitRows, *circuit.mutable_nodes());
  KeepLargest(kCircuitRows, *circuit.mutable_edges());
  KeepFirst(kCircuitRows, *circuit.mutable_minimality());
}

// Takes away what the page does not show, and returns the circuit to be drawn. In place
// and the largest part first: results may be large.
v1::GetCircuitResponse Slim(v1::Study& study) {
  v1::GetCircuitResponse circuit;
  if (study.has_baseline()) SlimBaseline(*study.mutable_baseline());
  if (study.has_patching()) {
    v1::PatchingResults& patching = *study.mutable_patching();
    DropPairs(patching);
    AddMissingRanking(patching);
    SlimPatching(patching);
  }
  if (study.has_ablation()) SlimAblation(*study.mutable_ablation());
  if (study.has_compare()) study.mutable_compare()->clear_prompts();
  if (study.has_circuit()) {
    circuit = CircuitOf(study.circuit(), kComponentsInCircuit, kEdgesInCircuit);
    SlimCircuit(*study.mutable_circuit());
  }
  return circuit;
}

absl::StatusOr<std::string> DataJson(v1::GetRunResponse run) {
  v1::GetCircuitResponse circuit;
  if (run.has_study()) circuit = Slim(*run.mutable_study());
  ABSTRACT_ASSIGN_OR_RETURN(const std::string run_json, MessageToJson(run, JsonStyle::kComplete));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string circuit_json, MessageToJson(circuit, JsonStyle::kComplete));
  if (run_json.size() + circuit_json.size() > kMaxDataBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("a page of these results would hold ", run_json.size() + circuit_json.size(),
                     " bytes of data; at most ", kMaxDataBytes, " can be shown"));
  }
  const std::string json = absl::StrCat("{\"version\":\"", ABSTRACT_VERSION, "\",\"run\":", run_json,
                                        ",\"circuit\":", circuit_json, "}");
  // Inside a script element "</script>" and "<!--" would end or upset it. In JSON
  // '<' stands only within strings, where it may be written so.
  return absl::StrReplaceAll(json, {{"<", "\\u003c"}});
}

}  // namespace

absl::StatusOr<std::string> RenderDashboard(v1::GetRunResponse run) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string data, DataJson(std::move(run)));
  // One pass over the template: what is put in is never searched for slots.
  return absl::StrReplaceAll(DashboardTemplate(), {{"/*{{style}}*/", DashboardStyle()},
                                                   {"/*{{plotly}}*/", PlotlyScript()},
                                                   {"/*{{scripts}}*/", DashboardScript()},
                                                   {"{{data}}", data}});
}

}  // namespace mechinterp
