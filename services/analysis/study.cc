#include "services/analysis/study.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "services/common/experiments.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// Far above any model there is; bound what a request can make us, or who draws it, allocate.
constexpr uint32_t kMaxLayers = 10'000;
constexpr uint32_t kMaxHeads = 1 << 16;
constexpr uint32_t kMaxNeurons = 1 << 24;
constexpr uint64_t kMaxMapCells = 4'000'000;  // of the map of layers by heads or positions
constexpr size_t kMaxNameBytes = 1000;

void CheckRate(const v1::Rate& rate, const std::string& field, Violations& violations) {
  if (rate.success_count() > rate.total_count()) {
    violations.Add(field, absl::StrCat(rate.success_count(), " successes of ", rate.total_count()));
  }
  for (const double share : {rate.rate(), rate.lower(), rate.upper()}) {
    if (!(share >= 0 && share <= 1)) {
      violations.Add(field, absl::StrCat(share, " is not in [0, 1]"));
      return;
    }
  }
}

void CheckBaseline(const v1::BaselineResults& baseline, const std::string& field, Violations& violations) {
  CheckRate(baseline.harmful(), field + ".harmful", violations);
  CheckRate(baseline.harmless(), field + ".harmless", violations);
  for (int i = 0; i < baseline.categories_size(); ++i) {
    const std::string category = absl::StrCat(field, ".categories[", i, "]");
    CheckRate(baseline.categories(i).harmful(), category + ".harmful", violations);
    CheckRate(baseline.categories(i).harmless(), category + ".harmless", violations);
  }
}

void CheckComponent(const v1::PatchingResults& patching, const v1::Component& component,
                    const std::string& field, Violations& violations) {
  if (component.kind() == v1::COMPONENT_KIND_UNSPECIFIED) violations.Add(field + ".kind", "must be set");
  if (component.layer() >= patching.layer_count()) {
    violations.Add(field + ".layer", absl::StrCat("must be below layer_count, ", patching.layer_count()));
  }
  if (component.has_head() && component.head() >= patching.head_count()) {
    violations.Add(field + ".head", absl::StrCat("must be below head_count, ", patching.head_count()));
  }
  if (component.neuron_end() > patching.neuron_count()) {
    violations.Add(field + ".neuron_end",
                   absl::StrCat("must be at most neuron_count, ", patching.neuron_count()));
  }
  if (component.kind() == v1::COMPONENT_KIND_NEURON_GROUP &&
      component.neuron_begin() >= component.neuron_end()) {
    violations.Add(field + ".neuron_begin",
                   absl::StrCat("must be below neuron_end, ", component.neuron_end()));
  }
  if (component.name().size() > kMaxNameBytes) {
    violations.Add(field + ".name", absl::StrCat("must have at most ", kMaxNameBytes, " bytes"));
  }
}

void CheckCount(uint32_t count, uint32_t max, const std::string& field, Violations& violations) {
  if (count > max) violations.Add(field, absl::StrCat(count, " is above ", max));
}

// What has a row for each layer, and a column for each of these.
void CheckMap(const v1::PatchingResults& patching, uint64_t columns, const std::string& field,
              Violations& violations) {
  if (columns * patching.layer_count() > kMaxMapCells) {
    violations.Add(field, absl::StrCat(columns, " in ", patching.layer_count(), " layers are more than ",
                                       kMaxMapCells, " places"));
  }
}

void CheckPatching(const v1::PatchingResults& patching, const std::string& field, Violations& violations) {
  if (patching.layer_count() == 0 || patching.layer_count() > kMaxLayers) {
    violations.Add(field + ".layer_count",
                   absl::StrCat(patching.layer_count(), " is not in [1, ", kMaxLayers, "]"));
    return;
  }
  CheckCount(patching.head_count(), kMaxHeads, field + ".head_count", violations);
  CheckCount(patching.neuron_count(), kMaxNeurons, field + ".neuron_count", violations);
  CheckMap(patching, patching.head_count(), field + ".head_count", violations);
  CheckMap(patching, static_cast<uint64_t>(patching.positions_size()), field + ".positions", violations);
  for (int i = 0; i < patching.effects_size(); ++i) {
    CheckComponent(patching, patching.effects(i).component(),
                   absl::StrCat(field, ".effects[", i, "].component"), violations);
  }
  for (int i = 0; i < patching.ranking_size(); ++i) {
    CheckComponent(patching, patching.ranking(i).component(),
                   absl::StrCat(field, ".ranking[", i, "].component"), violations);
  }
  if (!patching.layers().empty() && static_cast<uint32_t>(patching.layers_size()) != patching.layer_count()) {
    violations.Add(field + ".layers",
                   absl::StrCat("must be empty or as many as layer_count, ", patching.layer_count()));
  }
}

void CheckAblation(const v1::AblationResults& ablation, const std::string& field, Violations& violations) {
  for (int i = 0; i < ablation.curves_size(); ++i) {
    const v1::AblationCurve& curve = ablation.curves(i);
    const std::string path = absl::StrCat(field, ".curves[", i, "]");
    for (int j = 0; j < curve.top_size(); ++j) {
      CheckRate(curve.top(j).harmful(), absl::StrCat(path, ".top[", j, "].harmful"), violations);
      CheckRate(curve.top(j).harmless(), absl::StrCat(path, ".top[", j, "].harmless"), violations);
    }
    for (int j = 0; j < curve.random_size(); ++j) {
      CheckRate(curve.random(j).harmful(), absl::StrCat(path, ".random[", j, "].harmful"), violations);
      CheckRate(curve.random(j).harmless(), absl::StrCat(path, ".random[", j, "].harmless"), violations);
    }
  }
}

// `path_of`: where an experiment's results lie.
template <typename PathOf>
void CheckResults(const v1::Study& study, const PathOf& path_of, Violations& violations) {
  if (study.has_baseline()) {
    CheckBaseline(study.baseline(), path_of(InfoOf(v1::EXPERIMENT_KIND_BASELINE)), violations);
  }
  if (study.has_patching()) {
    CheckPatching(study.patching(), path_of(InfoOf(v1::EXPERIMENT_KIND_PATCHING)), violations);
  }
  if (study.has_ablation()) {
    CheckAblation(study.ablation(), path_of(InfoOf(v1::EXPERIMENT_KIND_ABLATION)), violations);
  }
}

}  // namespace

void CheckStudy(const v1::Study& study, const std::string& field, Violations& violations) {
  CheckResults(
      study, [&](const ExperimentInfo& experiment) { return absl::StrCat(field, ".", experiment.name); },
      violations);
}

absl::StatusOr<v1::Study> ReadStudy(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat("there is no results folder ", folder));
  }
  ABSTRACT_ASSIGN_OR_RETURN(v1::Study study, ReadResultsFiles(folder));
  Violations violations;
  CheckResults(
      study,
      [&](const ExperimentInfo& experiment) {
        return (std::filesystem::path(folder) / experiment.file_name).string();
      },
      violations);
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  return study;
}

bool IsEmpty(const v1::Study& study) {
  return std::none_of(Experiments().begin(), Experiments().end(), [&](const ExperimentInfo& experiment) {
    return ResultsOf(study, experiment.kind) != nullptr;
  });
}

std::string ModelName(const v1::Study& study) {
  for (const ExperimentInfo& experiment : Experiments()) {
    const google::protobuf::Message* const results = ResultsOf(study, experiment.kind);
    if (results == nullptr) continue;
    const std::string& name = ProvenanceOf(*results).model().name();
    if (!name.empty()) return name;
  }
  return "";
}

}  // namespace mechinterp
