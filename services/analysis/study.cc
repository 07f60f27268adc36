#include "services/analysis/study.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/proto_json.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

// Far above any model there is; bounds what a request can make us allocate.
constexpr uint32_t kMaxLayers = 10'000;

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
}

void CheckPatching(const v1::PatchingResults& patching, const std::string& field, Violations& violations) {
  if (patching.layer_count() == 0 || patching.layer_count() > kMaxLayers) {
    violations.Add(field + ".layer_count",
                   absl::StrCat(patching.layer_count(), " is not in [1, ", kMaxLayers, "]"));
    return;
  }
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

// False when there is no such file.
absl::StatusOr<bool> ReadPart(const std::string& folder, const std::string& name,
                              google::protobuf::Message* part) {
  const std::string path = (std::filesystem::path(folder) / name).string();
  const absl::StatusOr<std::string> json = ReadTextFile(path);
  if (absl::IsNotFound(json.status())) return false;
  ABSTRACT_RETURN_IF_ERROR(json.status());
  if (const absl::Status status = MessageFromJson(*json, part); !status.ok())
    return WithContext(status, path);
  return true;
}

}  // namespace

void CheckStudy(const v1::Study& study, const std::string& field, Violations& violations) {
  if (study.has_baseline()) CheckBaseline(study.baseline(), field + ".baseline", violations);
  if (study.has_patching()) CheckPatching(study.patching(), field + ".patching", violations);
  if (study.has_ablation()) CheckAblation(study.ablation(), field + ".ablation", violations);
}

absl::StatusOr<v1::Study> ReadStudy(const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat("there is no results folder ", folder));
  }
  v1::Study study;
  v1::BaselineResults baseline;
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_baseline, ReadPart(folder, "01_baseline_results.json", &baseline));
  if (has_baseline) *study.mutable_baseline() = std::move(baseline);
  v1::PatchingResults patching;
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_patching, ReadPart(folder, "02_patching_results.json", &patching));
  if (has_patching) *study.mutable_patching() = std::move(patching);
  v1::AblationResults ablation;
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_ablation, ReadPart(folder, "03_ablation_results.json", &ablation));
  if (has_ablation) *study.mutable_ablation() = std::move(ablation);

  Violations violations;
  CheckStudy(study, folder, violations);
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  return study;
}

bool IsEmpty(const v1::Study& study) {
  return !study.has_baseline() && !study.has_patching() && !study.has_ablation();
}

std::string ModelName(const v1::Study& study) {
  for (const v1::Provenance* provenance :
       {&study.baseline().provenance(), &study.patching().provenance(), &study.ablation().provenance()}) {
    if (!provenance->model().name().empty()) return provenance->model().name();
  }
  return "";
}

}  // namespace mechinterp
