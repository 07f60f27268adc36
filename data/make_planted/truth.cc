#include "data/make_planted/truth.h"

#include <algorithm>
#include <map>
#include <set>

namespace mechinterp::make_planted {
namespace {

using Json = nlohmann::ordered_json;

Json IdsOf(const std::vector<int>& pairs, const Words& words) {
  Json ids = Json::array();
  for (const int pair : pairs) ids.push_back(words.pairs[pair].id);
  return ids;
}

Json NodeJson(const std::string& name, const NodeNote& note, const Words& words) {
  Json node = {{"name", name},
               {"does", note.does},
               {"effects", {{"noising", note.effects.noising}, {"denoising", note.effects.denoising}}}};
  if (!note.pairs.empty()) node["pairs"] = IdsOf(note.pairs, words);
  return node;
}

Json EdgesJson(const std::vector<Edge>& edges, std::string Edge::*name) {
  std::vector<std::string> names;
  for (const Edge& edge : edges) names.push_back(edge.*name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Json DirectionsJson(const std::vector<DirectionNote>& notes, const DenseMatrix& basis) {
  Json directions = Json::array();
  for (const DirectionNote& note : notes) {
    Json vectors = Json::array();
    for (const Feature feature : note.features) {
      std::vector<float> vector(basis.columns);
      for (int i = 0; i < basis.columns; ++i) vector[i] = static_cast<float>(basis(feature, i));
      vectors.push_back(vector);
    }
    directions.push_back(
        {{"position", note.position}, {"first_layer", note.first_layer}, {"vectors", vectors}});
  }
  return directions;
}

}  // namespace

Json TruthOf(const Variant& variant, const Planting& planting, const CircuitBuilder& builder,
             const Answers& answers, const DenseMatrix& basis) {
  const Words& words = planting.words();
  std::map<std::string, NodePart> parts = {{"embed", NodePart::kCircuit}, {"final", NodePart::kCircuit}};
  Json nodes =
      Json::array({NodeJson("embed", {.does = "says which words are harmful", .effects = {1, 1}}, words)});
  for (size_t i = 0; i < builder.nodes().size(); ++i) {
    const NodeNote& note = planting.notes()[i];
    parts[builder.nodes()[i].name()] = note.part;
    if (note.part == NodePart::kCircuit) nodes.push_back(NodeJson(builder.nodes()[i].name(), note, words));
  }
  const std::vector<Edge> all_edges = builder.Edges(answers.refusal_openings, answers.compliance_openings);
  const auto edges_where = [&](const auto& wanted) {
    std::vector<Edge> edges;
    std::copy_if(all_edges.begin(), all_edges.end(), std::back_inserter(edges), wanted);
    return edges;
  };
  const std::vector<Edge> circuit = edges_where([&](const Edge& edge) {
    return parts[edge.sender] == NodePart::kCircuit && parts[edge.receiver] == NodePart::kCircuit;
  });

  Json backups = Json::array(), decoys = Json::array();
  for (size_t i = 0; i < builder.nodes().size(); ++i) {
    const NodeNote& note = planting.notes()[i];
    const std::string name = builder.nodes()[i].name();
    if (note.part == NodePart::kCircuit) continue;
    Json node = NodeJson(name, note, words);
    const auto touching =
        edges_where([&](const Edge& edge) { return edge.sender == name || edge.receiver == name; });
    if (note.part == NodePart::kBackup) {
      node["backs_up"] = note.backs_up;
      node["edges"] = EdgesJson(touching, &Edge::name);
      node["neuron_edges"] = EdgesJson(touching, &Edge::by_neuron);
    }
    (note.part == NodePart::kBackup ? backups : decoys).push_back(std::move(node));
  }
  Json truth = {{"nodes", nodes},
                {"edges", EdgesJson(circuit, &Edge::name)},
                {"neuron_edges", EdgesJson(circuit, &Edge::by_neuron)},
                {"backups", backups},
                {"decoys", decoys},
                {"holds_for", IdsOf(variant.pairs(words), words)}};
  if (!planting.directions().empty()) truth["directions"] = DirectionsJson(planting.directions(), basis);
  return truth;
}

}  // namespace mechinterp::make_planted
