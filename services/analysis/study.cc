#include "services/analysis/study.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/analysis/circuit.h"
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
constexpr int kMaxCircuitParts = 100'000;  // nodes, or edges
constexpr int kMaxNamesOfPart = 64;        // that a node backs up, or an edge's effect depends on
constexpr int kMaxCurvePoints = 1000;
constexpr int kMaxMissedLeaders = 1000;

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

bool IsShare(double share) { return share >= 0 && share <= 1; }

void CheckShare(double share, const std::string& field, Violations& violations) {
  if (!IsShare(share)) violations.Add(field, absl::StrCat(share, " is not in [0, 1]"));
}

void CheckSize(int size, int max, const std::string& field, Violations& violations) {
  if (size > max) violations.Add(field, absl::StrCat(size, " of them are more than ", max));
}

void CheckEstimate(const v1::Estimate& estimate, const std::string& field, Violations& violations) {
  for (const double value : {estimate.mean(), estimate.lower(), estimate.upper()}) {
    if (!std::isfinite(value)) {
      violations.Add(field, absl::StrCat(value, " is no effect"));
      return;
    }
  }
}

// Of a head or a neuron, and within bounds; none where it is no such name.
std::optional<CircuitPlace> CheckNodeName(const std::string& name, const std::string& field,
                                          Violations& violations) {
  const std::optional<CircuitPlace> place = ParseCircuitName(name);
  const bool is_node = place && (place->kind == PartKind::kHead || place->kind == PartKind::kNeuron);
  const bool is_near = place && place->layer < kMaxLayers &&
                       place->index < (place->kind == PartKind::kHead ? kMaxHeads : kMaxNeurons);
  if (is_node && is_near) return place;
  violations.Add(field, "must be the name of a head, \"L3.H5\", or of a neuron, \"L3.N17\"");
  return std::nullopt;
}

void CheckNodeNames(const google::protobuf::RepeatedPtrField<std::string>& names, int most,
                    const std::string& field, Violations& violations) {
  CheckSize(names.size(), most, field, violations);
  for (int i = 0; i < std::min(names.size(), most); ++i) {
    CheckNodeName(names[i], absl::StrCat(field, "[", i, "]"), violations);
  }
}

void CheckNode(const v1::MeasuredNode& node, const std::string& field, Violations& violations) {
  if (const auto place = CheckNodeName(node.name(), field + ".name", violations)) {
    const bool is_head = place->kind == PartKind::kHead;
    const bool is_told = is_head ? node.has_head() && !node.has_neuron() && node.head() == place->index
                                 : node.has_neuron() && !node.has_head() && node.neuron() == place->index;
    if (!is_told || node.layer() != place->layer) {
      violations.Add(field + ".name", "must be the name of its layer and head or neuron");
    }
  }
  if (node.role() == v1::CIRCUIT_ROLE_UNSPECIFIED) violations.Add(field + ".role", "must be set");
  CheckEstimate(node.denoising(), field + ".denoising", violations);
  CheckEstimate(node.noising(), field + ".noising", violations);
  CheckEstimate(node.conditional(), field + ".conditional", violations);
  CheckShare(node.p_value(), field + ".p_value", violations);
  CheckNodeNames(node.backs_up(), kMaxNamesOfPart, field + ".backs_up", violations);
}

void CheckEdge(const v1::MeasuredEdge& edge, const std::string& field, Violations& violations) {
  const auto sender = ParseCircuitName(edge.sender()), receiver = ParseCircuitName(edge.receiver());
  const auto is_near = [](const CircuitPlace& end) {
    return end.layer < kMaxLayers && end.index < kMaxHeads;
  };
  if (!sender || !IsSender(*sender) || !is_near(*sender)) {
    violations.Add(field + ".sender", "must be \"embed\", a head or an MLP, as \"L3.H5\" or \"L3.mlp\"");
  } else if (!receiver || !IsReceiver(*receiver) || !is_near(*receiver)) {
    violations.Add(field + ".receiver",
                   "must be \"final\" or what a head or an MLP reads, as \"L3.q5\" or \"L3.mlp_in\"");
  } else if (!Reaches(*sender, *receiver)) {
    violations.Add(field + ".receiver", "must come after the sender");
  }
  CheckEstimate(edge.denoising(), field + ".denoising", violations);
  CheckEstimate(edge.noising(), field + ".noising", violations);
  CheckShare(edge.p_value(), field + ".p_value", violations);
  CheckNodeNames(edge.conditional_on(), kMaxNamesOfPart, field + ".conditional_on", violations);
}

void CheckCurve(const v1::CircuitCurve& curve, const std::string& field, Violations& violations) {
  CheckSize(curve.points_size(), kMaxCurvePoints, field + ".points", violations);
  for (int i = 0; i < std::min(curve.points_size(), kMaxCurvePoints); ++i) {
    const std::string path = absl::StrCat(field, ".points[", i, "]");
    const double share = curve.points(i).share();
    if (!IsShare(share) || share == 0) {
      violations.Add(path + ".share", absl::StrCat(share, " is not in (0, 1]"));
    }
    CheckEstimate(curve.points(i).faithfulness(), path + ".faithfulness", violations);
  }
}

void CheckCircuit(const v1::CircuitResults& circuit, const std::string& field, Violations& violations) {
  CheckSize(circuit.nodes_size(), kMaxCircuitParts, field + ".nodes", violations);
  CheckSize(circuit.edges_size(), kMaxCircuitParts, field + ".edges", violations);
  CheckSize(circuit.minimality_size(), kMaxCircuitParts, field + ".minimality", violations);
  CheckCount(circuit.head_count(), kMaxHeads, field + ".head_count", violations);
  const uint32_t key_heads = circuit.key_value_head_count();
  if (key_heads != 0 && circuit.head_count() % key_heads != 0) {
    violations.Add(field + ".key_value_head_count",
                   absl::StrCat("must divide head_count, ", circuit.head_count()));
  }
  for (int i = 0; i < std::min(circuit.nodes_size(), kMaxCircuitParts); ++i) {
    CheckNode(circuit.nodes(i), absl::StrCat(field, ".nodes[", i, "]"), violations);
  }
  for (int i = 0; i < std::min(circuit.edges_size(), kMaxCircuitParts); ++i) {
    CheckEdge(circuit.edges(i), absl::StrCat(field, ".edges[", i, "]"), violations);
  }
  for (int i = 0; i < std::min(circuit.minimality_size(), kMaxCircuitParts); ++i) {
    const std::string path = absl::StrCat(field, ".minimality[", i, "]");
    CheckNodeName(circuit.minimality(i).name(), path + ".name", violations);
    CheckEstimate(circuit.minimality(i).drop(), path + ".drop", violations);
  }
  CheckCurve(circuit.edge_curve(), field + ".edge_curve", violations);
  CheckCurve(circuit.node_curve(), field + ".node_curve", violations);
  CheckCurve(circuit.neuron_curve(), field + ".neuron_curve", violations);
  CheckShare(circuit.parameter_share(), field + ".parameter_share", violations);
  CheckSize(circuit.head_agreement().missed_leaders_size(), kMaxMissedLeaders,
            field + ".head_agreement.missed_leaders", violations);
  CheckSize(circuit.neuron_group_agreement().missed_leaders_size(), kMaxMissedLeaders,
            field + ".neuron_group_agreement.missed_leaders", violations);
}

void CheckDirection(const v1::DirectionResults& direction, const std::string& field, Violations& violations) {
  CheckSize(direction.candidates_size(), static_cast<int>(kMaxMapCells), field + ".candidates", violations);
  if (direction.has_chosen() && direction.chosen() >= static_cast<uint32_t>(direction.candidates_size())) {
    violations.Add(field + ".chosen",
                   absl::StrCat(direction.chosen(), " is no index of candidates, of which there are ",
                                direction.candidates_size()));
  }
  for (int i = 0; i < std::min(direction.outcomes_size(), kMaxCurvePoints); ++i) {
    const std::string path = absl::StrCat(field, ".outcomes[", i, "]");
    CheckRate(direction.outcomes(i).harmful(), path + ".harmful", violations);
    CheckRate(direction.outcomes(i).harmless(), path + ".harmless", violations);
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
  if (study.has_circuit()) {
    CheckCircuit(study.circuit(), path_of(InfoOf(v1::EXPERIMENT_KIND_CIRCUIT)), violations);
  }
  if (study.has_direction()) {
    CheckDirection(study.direction(), path_of(InfoOf(v1::EXPERIMENT_KIND_DIRECTION)), violations);
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
