#include "data/make_trained/truth.h"

#include <algorithm>

namespace mechinterp::make_trained {
namespace {

using Json = nlohmann::ordered_json;

// Positions in Task::pairs whose answer this sender takes to the source's.
std::vector<size_t> MovedBy(int sender, const Task& task, const EdgeSpace& space) {
  const EdgeMask mask = EdgeDraws(space, task.circuit).AllOf(sender);
  std::vector<size_t> moved;
  for (size_t i = 0; i < task.pairs.size(); ++i) {
    const Value &base = task.pairs[i].base.facts, &source = task.pairs[i].source.facts;
    if (task.circuit.Answer(space, base, source, mask) != task.circuit.Answer(space, base))
      moved.push_back(i);
  }
  return moved;
}

Json NodesJson(const Task& task, const EdgeSpace& space) {
  Json nodes = Json::array();
  for (size_t i = 0; i + 1 < task.circuit.variables.size(); ++i) {
    const Variable& variable = task.circuit.variables[i];
    Json node = {{"name", space.SenderName(variable.sender)},
                 {"does", variable.does},
                 {"effects", {{"noising", 1}, {"denoising", 1}}}};
    const std::vector<size_t> moved = MovedBy(variable.sender, task, space);
    if (moved.size() < task.pairs.size()) {
      node["pairs"] = Json::array();
      for (const size_t pair : moved) node["pairs"].push_back(task.pairs[pair].id);
    }
    nodes.push_back(std::move(node));
  }
  return nodes;
}

Json EdgesJson(const Task& task, const EdgeSpace& space) {
  std::vector<std::string> names;
  for (const Edge& edge : task.circuit.Edges()) names.push_back(space.EdgeName(edge));
  std::sort(names.begin(), names.end());
  return names;
}

// Of two answers; the planted models' field names, whatever the answers are.
Json MetricJson(const Task& task, int answer, int other) {
  return {{"refusal_tokens", task.answers[static_cast<size_t>(answer)]},
          {"compliance_tokens", task.answers[static_cast<size_t>(other)]}};
}

Json PairsJson(const Task& task, const EdgeSpace& space, const engine::Tokenizer& tokenizer) {
  Json pairs = Json::array();
  for (const ExamplePair& pair : task.pairs) {
    const auto& clean = pair.base.prompt;
    const auto& source = pair.source.prompt;
    pairs.push_back({{"id", pair.id},
                     {"differs_in", pair.differs_in},
                     {"clean_text", tokenizer.Decode(clean, /*skip_special=*/false)},
                     {"source_text", tokenizer.Decode(source, /*skip_special=*/false)},
                     {"clean", clean},
                     {"source", source},
                     {"metric", MetricJson(task, task.circuit.Answer(space, pair.base.facts),
                                           task.circuit.Answer(space, pair.source.facts))}});
  }
  return pairs;
}

}  // namespace

Json TruthOf(const Task& task, const EdgeSpace& space, const engine::Tokenizer& tokenizer) {
  Json truth;
  truth["positions"] = {{"last", -1}};
  if (task.end_of_turn != -1) truth["positions"]["end_of_turn"] = task.end_of_turn;
  // Of more answers than two only each pair's own metric makes sense.
  if (task.answers.size() == 2) truth["metric"] = MetricJson(task, 0, 1);
  truth["nodes"] = NodesJson(task, space);
  truth["edges"] = truth["neuron_edges"] = EdgesJson(task, space);
  truth["backups"] = truth["decoys"] = truth["holds_for"] = Json::array();
  truth["pairs"] = PairsJson(task, space, tokenizer);
  return truth;
}

Json AccuracyJson(const Accuracies& accuracies) {
  return {{"heldout_pairs", accuracies.pairs},       {"behaviour", accuracies.behaviour},
          {"interchange", accuracies.interchange},   {"interchange_edges", accuracies.interchange_edges},
          {"interchange_moved", accuracies.moved},   {"strict", accuracies.strict},
          {"strict_edges", accuracies.strict_edges}, {"circuit_alone", accuracies.circuit_alone}};
}

Json EffectErrorsJson(const EffectErrors& errors) {
  const auto worst = [](double error, const std::string& name) {
    return Json{{"largest", error}, {"of", name}};
  };
  return {{"circuit_nodes", worst(errors.largest_of_circuit_nodes, errors.worst_circuit_node)},
          {"other_nodes", worst(errors.largest_of_other_nodes, errors.worst_other_node)},
          {"circuit_edges", worst(errors.largest_of_circuit_edges, errors.worst_circuit_edge)},
          {"other_edges", worst(errors.largest_of_other_edges, errors.worst_other_edge)}};
}

}  // namespace mechinterp::make_trained
