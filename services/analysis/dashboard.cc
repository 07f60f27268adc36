#include "services/analysis/dashboard.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "services/analysis/assets.h"
#include "services/analysis/circuit.h"
#include "services/analysis/study.h"
#include "services/common/proto_json.h"
#include "services/common/ranking.h"
#include "services/common/status_macros.h"
#include "services/common/text.h"

namespace mechinterp {
namespace {

constexpr int kComponentsInCircuit = 12;
constexpr int kComponentsInTable = 20;
constexpr size_t kOpeningBytes = 160;

void KeepOpening(v1::JudgedResponse& response) {
  response.set_response(Shortened(response.response(), kOpeningBytes, "…"));
}

// The curve and point whose samples are shown: the ones that the criterion
// judges.
bool IsShown(const v1::AblationResults& ablation, int curve, const v1::AblationPoint& point) {
  return curve == 0 && point.component_count() == ablation.criterion().component_count();
}

// The study without what the page does not show.
v1::Study Slim(v1::Study study) {
  for (v1::JudgedResponse& response : *study.mutable_baseline()->mutable_responses()) KeepOpening(response);
  for (v1::ComponentEffect& effect : *study.mutable_patching()->mutable_effects()) {
    effect.clear_pair_effects();
    effect.clear_pair_indices();
  }
  auto& ranking = *study.mutable_patching()->mutable_ranking();
  if (ranking.size() > kComponentsInTable) {
    ranking.DeleteSubrange(kComponentsInTable, ranking.size() - kComponentsInTable);
  }
  study.mutable_compare()->clear_prompts();
  v1::AblationResults& ablation = *study.mutable_ablation();
  for (int i = 0; i < ablation.curves_size(); ++i) {
    for (v1::AblationPoint& point : *ablation.mutable_curves(i)->mutable_top()) {
      if (!IsShown(ablation, i, point)) point.clear_samples();
      for (v1::JudgedResponse& sample : *point.mutable_samples()) KeepOpening(sample);
    }
  }
  ablation.mutable_held_out_baseline()->clear_samples();
  ablation.mutable_held_out_top()->clear_samples();
  return study;
}

// Slim() makes empty messages of what was unset; take those away again.
void KeepPresence(const v1::Study& original, v1::Study& slim) {
  if (!original.ablation().has_held_out_baseline()) slim.mutable_ablation()->clear_held_out_baseline();
  if (!original.ablation().has_held_out_top()) slim.mutable_ablation()->clear_held_out_top();
  if (!original.has_baseline()) slim.clear_baseline();
  if (!original.has_patching()) slim.clear_patching();
  if (!original.has_ablation()) slim.clear_ablation();
  if (!original.has_compare()) slim.clear_compare();
}

absl::StatusOr<std::string> DataJson(const v1::GetRunResponse& run) {
  v1::Study study = run.study();
  v1::Circuit circuit;
  if (study.has_patching()) {
    AddMissingRanking(*study.mutable_patching());
    circuit = CircuitOf(study.patching(), kComponentsInCircuit);
  }
  v1::GetRunResponse shown;
  *shown.mutable_description() = run.description();
  *shown.mutable_study() = Slim(study);
  KeepPresence(study, *shown.mutable_study());
  ABSTRACT_ASSIGN_OR_RETURN(const std::string run_json, MessageToJson(shown, JsonStyle::kComplete));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string circuit_json, MessageToJson(circuit, JsonStyle::kComplete));
  const std::string json = absl::StrCat("{\"version\":\"", ABSTRACT_VERSION, "\",\"run\":", run_json,
                                        ",\"circuit\":", circuit_json, "}");
  // Inside a script element "</script>" and "<!--" would end or upset it. In JSON
  // '<' stands only within strings, where it may be written so.
  return absl::StrReplaceAll(json, {{"<", "\\u003c"}});
}

}  // namespace

absl::StatusOr<std::string> RenderDashboard(const v1::GetRunResponse& run) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string data, DataJson(run));
  // One pass over the template: what is put in is never searched for slots.
  return absl::StrReplaceAll(DashboardTemplate(), {{"/*{{style}}*/", DashboardStyle()},
                                                   {"/*{{plotly}}*/", PlotlyScript()},
                                                   {"/*{{scripts}}*/", DashboardScript()},
                                                   {"{{data}}", data}});
}

}  // namespace mechinterp
