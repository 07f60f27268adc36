#include "clients/experiments/circuit_probe.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/experiments/patching_sweeps.h"
#include "services/common/hash.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// More than any model has edges: the service sends those that there are.
constexpr uint32_t kAllEdges = 2'000'000;

void SetScores(const std::vector<float>& scores, v1::CircuitPart& part) {
  static_assert(std::endian::native == std::endian::little);
  part.mutable_scores()->assign(reinterpret_cast<const char*>(scores.data()), scores.size() * sizeof(float));
}

void SetIndex(const CircuitGraph::Node& node, v1::Intervention& intervention) {
  v1::HookSite& site = *intervention.mutable_site();
  site.set_layer(static_cast<uint32_t>(node.layer));
  site.set_point(node.is_head ? v1::HOOK_POINT_Z : v1::HOOK_POINT_MLP_POST);
  const auto index = static_cast<uint32_t>(node.index);
  if (node.is_head) {
    intervention.mutable_selector()->add_heads(index);
  } else {
    intervention.mutable_selector()->add_dims(index);
  }
}

// The node as it is in the source prompt's run, at all positions.
v1::Intervention Replace(const CircuitGraph::Node& node, const v1::Prompt& source) {
  v1::Intervention intervention;
  SetIndex(node, intervention);
  *intervention.mutable_replacement()->mutable_source()->mutable_prompt()->mutable_prompt() = source;
  return intervention;
}

void Ablate(CircuitProbe::Nodes nodes, const v1::Prompt& source,
            google::protobuf::RepeatedPtrField<v1::Intervention>& interventions) {
  for (const CircuitGraph::Node& node : nodes) *interventions.Add() = Replace(node, source);
}

}  // namespace

std::string CircuitTask::key() const {
  const uint64_t prompts =
      Fnv1a(source.SerializeAsString(), Fnv1a("\xff", Fnv1a(prompt.SerializeAsString())));
  return absl::StrCat(pair_id, "/", std::string(DirectionName(direction)), "/",
                      absl::Hex(prompts, absl::kZeroPad16));
}

CircuitTask CircuitTask::Reversed() const {
  const bool noising = direction == v1::PATCH_DIRECTION_NOISING;
  CircuitTask reversed = *this;
  reversed.direction = noising ? v1::PATCH_DIRECTION_DENOISING : v1::PATCH_DIRECTION_NOISING;
  std::swap(reversed.prompt, reversed.source);
  reversed.gap = -gap;
  return reversed;
}

CircuitTask TaskOf(const PromptPair& pair, const MetricTokens& tokens) {
  CircuitTask task;
  task.pair_id = pair.id;
  task.prompt = UserPrompt(pair.harmful);
  task.source = UserPrompt(pair.harmless);
  task.metrics = MetricOptionsOf(tokens);
  return task;
}

v1::RunAttributionRequest CircuitProbe::Attribution(const CircuitTask& task) const {
  v1::RunAttributionRequest request;
  v1::AttributionPair& pair = *request.add_pairs();
  *pair.mutable_prompt() = task.prompt;
  *pair.mutable_source_prompt() = task.source;
  *request.mutable_metrics() = task.metrics;
  request.set_method(settings_.method);
  if (settings_.method == v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS) {
    request.set_steps(static_cast<uint32_t>(settings_.steps));
  }
  return request;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::Metrics(const CircuitTask& task) const {
  v1::RunAttributionRequest request = Attribution(task);
  request.set_method(v1::ATTRIBUTION_METHOD_GRADIENT);
  request.clear_steps();
  request.mutable_filter()->add_name_patterns("hook_embed");
  request.set_top_count(1);
  ABSTRACT_ASSIGN_OR_RETURN(const AttributionRun run, context_.client->RunAttribution(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), run.header.model()));
  v1::CircuitPart part;
  part.add_values(run.pairs.at(0).pair.metric());
  part.add_values(run.pairs.at(0).pair.source_metric());
  part.add_values(run.pairs.at(0).pair.prompt_token_ids_size());
  part.add_values(run.pairs.at(0).pair.source_token_ids_size());
  part.set_run_count(2);
  return part;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::NodeScores(const CircuitTask& task, Nodes ablated) const {
  v1::RunAttributionRequest request = Attribution(task);
  request.mutable_filter()->add_name_patterns("blocks.*.attn.hook_z");
  request.mutable_filter()->add_name_patterns("blocks.*.mlp.hook_post");
  request.set_sum_positions(true);
  Ablate(ablated, task.source, *request.mutable_interventions());
  ABSTRACT_ASSIGN_OR_RETURN(const AttributionRun run, context_.client->RunAttribution(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), run.header.model()));
  std::vector<float> scores(graph_.node_count());
  for (const Activation& tensor : run.pairs.at(0).tensors) {
    const bool is_head = tensor.info.site().point() == v1::HOOK_POINT_Z;
    const int first = graph_.NumberOf({static_cast<int>(tensor.info.site().layer()), is_head, 0});
    for (size_t i = 0; i < tensor.values.size(); ++i) {
      scores.at(first + i) = static_cast<float>(tensor.values[i] / task.gap);
    }
  }
  v1::CircuitPart part;
  SetScores(scores, part);
  part.set_run_count(1);
  return part;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::EdgeScores(const CircuitTask& task) const {
  v1::RunAttributionRequest request = Attribution(task);
  request.set_edges(true);
  request.set_top_count(kAllEdges);
  ABSTRACT_ASSIGN_OR_RETURN(const AttributionRun run, context_.client->RunAttribution(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), run.header.model()));
  std::vector<float> scores(graph_.edge_count());
  for (const v1::AttributionEdge& edge : run.pairs.at(0).edges) {
    const int number = graph_.EdgeNumber(edge.name());
    if (number < 0) return absl::InternalError(absl::StrCat("RunAttribution: unknown edge ", edge.name()));
    scores[number] = static_cast<float>(edge.score() / task.gap);
  }
  v1::CircuitPart part;
  SetScores(scores, part);
  part.set_run_count(1);
  return part;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::Sweep(const CircuitTask& task,
                                                    v1::RunPatchSweepRequest request) const {
  *request.mutable_prompt() = task.prompt;
  *request.mutable_metrics() = task.metrics;
  ABSTRACT_ASSIGN_OR_RETURN(const mechinterp::Sweep sweep, context_.client->RunPatchSweep(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), sweep.header.model()));
  v1::CircuitPart part;
  for (const v1::SweepResult& result : sweep.results) {
    const double change = result.metrics().logit_difference() - sweep.header.clean().logit_difference();
    part.add_values(change / task.gap + 0.0);  // no -0, which JSON does not tell from 0
  }
  part.set_run_count(static_cast<uint32_t>(sweep.results.size()));
  return part;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::SweepLayers(const CircuitTask& task, v1::HookPoint point,
                                                          v1::SweepAxis axis, int dims_per_group) const {
  v1::RunPatchSweepRequest request;
  v1::SweepGrid& grid = *request.mutable_grid();
  *grid.mutable_prototype()->mutable_replacement()->mutable_source()->mutable_prompt()->mutable_prompt() =
      task.source;
  grid.add_points(point);
  if (axis != v1::SWEEP_AXIS_UNSPECIFIED) grid.add_axes(axis);
  grid.set_dims_per_group(static_cast<uint32_t>(dims_per_group));
  return Sweep(task, std::move(request));
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::HeadEffects(const CircuitTask& task) const {
  return SweepLayers(task, v1::HOOK_POINT_Z, v1::SWEEP_AXIS_HEAD, 0);
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::MlpEffects(const CircuitTask& task) const {
  return SweepLayers(task, v1::HOOK_POINT_MLP_OUT, v1::SWEEP_AXIS_UNSPECIFIED, 0);
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::NeuronGroupEffects(const CircuitTask& task,
                                                                 int neurons_per_group) const {
  return SweepLayers(task, v1::HOOK_POINT_MLP_POST, v1::SWEEP_AXIS_DIM_GROUP, neurons_per_group);
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::NodeEffects(const CircuitTask& task, Nodes nodes,
                                                          Nodes ablated) const {
  if (nodes.empty()) return v1::CircuitPart();
  v1::RunPatchSweepRequest request;
  for (const CircuitGraph::Node& node : nodes) {
    *request.add_sets()->add_interventions() = Replace(node, task.source);
  }
  if (!ablated.empty()) Ablate(ablated, task.source, *request.mutable_base()->mutable_interventions());
  return Sweep(task, std::move(request));
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::EdgeEffects(const CircuitTask& task,
                                                          absl::Span<const std::string> edges) const {
  if (edges.empty()) return v1::CircuitPart();
  v1::RunPatchSweepRequest request;
  for (const std::string& edge : edges) {
    v1::Intervention& intervention = *request.add_sets()->add_interventions();
    intervention = graph_.PathPatchOf(graph_.EdgeNumber(edge));
    *intervention.mutable_path_patch()->mutable_source()->mutable_prompt()->mutable_prompt() = task.source;
  }
  return Sweep(task, std::move(request));
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::DirectScores(const CircuitTask& task) const {
  constexpr uint32_t kNeurons = 1000;
  v1::RunReadoutRequest request;
  *request.add_prompts() = task.prompt;
  *request.mutable_metrics() = task.metrics;
  request.mutable_direct_attribution()->set_neuron_count(
      std::min<uint32_t>(kNeurons, static_cast<uint32_t>(graph_.node_count() - graph_.head_count())));
  ABSTRACT_ASSIGN_OR_RETURN(const Readout readout, context_.client->RunReadout(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), readout.header.model()));
  std::vector<float> scores(graph_.node_count());
  for (const v1::DirectContribution& each : readout.prompts.at(0).positions.at(0).contributions) {
    if (!each.has_node()) continue;
    const CircuitGraph::Node node{static_cast<int>(each.site().layer()),
                                  each.site().point() == v1::HOOK_POINT_RESULT,
                                  static_cast<int>(each.node())};
    scores.at(graph_.NumberOf(node)) = static_cast<float>(each.contribution() / std::abs(task.gap));
  }
  v1::CircuitPart part;
  SetScores(scores, part);
  part.set_run_count(1);
  return part;
}

absl::StatusOr<v1::CircuitPart> CircuitProbe::Circuits(const CircuitTask& task,
                                                       v1::RunCircuitRequest request) const {
  *request.mutable_prompt() = task.prompt;
  *request.mutable_source_prompt() = task.source;
  *request.mutable_metrics() = task.metrics;
  ABSTRACT_ASSIGN_OR_RETURN(const CircuitRun run, context_.client->RunCircuit(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(context_.model.identity(), run.header.model()));
  v1::CircuitPart part;
  for (const v1::CircuitResult& result : run.results) part.add_values(result.faithfulness() + 0.0);
  for (const v1::CircuitResult& result : run.results) part.add_values(result.metrics().kl_from_clean() + 0.0);
  part.set_run_count(static_cast<uint32_t>(run.results.size()));
  return part;
}

CircuitPartSize SizeOf(const v1::CircuitPart& part) {
  return {static_cast<size_t>(part.values_size()), part.scores().size() / sizeof(float)};
}

std::vector<float> ScoresOf(const v1::CircuitPart& part) {
  std::vector<float> scores(part.scores().size() / sizeof(float));
  std::memcpy(scores.data(), part.scores().data(), scores.size() * sizeof(float));
  return scores;
}

}  // namespace mechinterp
