#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/experiments/circuit_measures.h"
#include "clients/experiments/circuit_nodes.h"
#include "clients/lib/model_client.h"
#include "clients/lib/text_table.h"
#include "data/make_planted/planted_model.h"
#include "data/make_planted/variants.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/local_service.h"
#include "tests/benchmarks/truth_scores.h"

namespace mechinterp::benchmarks {
namespace {

using Json = nlohmann::json;
using Node = CircuitGraph::Node;

constexpr double kLeastEffect = 0.02;

// What a model's truth.json says.
struct Truth {
  std::set<std::string> nodes, edges, backups, backup_edges, decoys;
  std::vector<CircuitTask> noising;  // of the pairs that it holds for; without gaps
  MetricTokens tokens;
};

// truth.json's receivers, whose MLPs have their senders' names, as AttributionEdge has them.
std::string EdgeName(const std::string& edge) { return edge + (edge.ends_with(".mlp") ? "_in" : ""); }

v1::Prompt TokenPrompt(const Json& ids) {
  v1::Prompt prompt;
  for (const Json& id : ids) prompt.mutable_token_ids()->add_ids(id.get<uint32_t>());
  return prompt;
}

absl::StatusOr<Truth> ReadTruth(const Json& json, const std::vector<PromptPair>& pairs) {
  Truth truth;
  for (const Json& node : json.at("nodes")) {
    const auto name = node.at("name").get<std::string>();
    if (name != "embed" && name != "final") truth.nodes.insert(name);
  }
  for (const Json& edge : json.at("edges")) truth.edges.insert(EdgeName(edge.get<std::string>()));
  for (const Json& backup : json.at("backups")) {
    truth.backups.insert(backup.at("name").get<std::string>());
    for (const Json& edge : backup.at("edges")) truth.backup_edges.insert(EdgeName(edge.get<std::string>()));
  }
  for (const Json& decoy : json.at("decoys")) truth.decoys.insert(decoy.at("name").get<std::string>());
  truth.tokens.refusal = json.at("metric").at("refusal_tokens").get<std::vector<uint32_t>>();
  truth.tokens.compliance = json.at("metric").at("compliance_tokens").get<std::vector<uint32_t>>();
  if (json.contains("pairs")) {
    for (const Json& pair : json.at("pairs")) {
      truth.noising.push_back({absl::StrCat("pair", truth.noising.size()), v1::PATCH_DIRECTION_NOISING,
                               TokenPrompt(pair.at("clean")), TokenPrompt(pair.at("source"))});
    }
    return truth;
  }
  const auto ids = json.at("holds_for").get<std::set<std::string>>();
  for (const PromptPair& pair : pairs) {
    if (ids.count(pair.id) > 0) truth.noising.push_back(TaskOf(pair));
  }
  return truth;
}

// What one method says of one model: scores by node and by edge; empty where it has none.
struct Answer {
  std::vector<double> nodes, edges, backups;
};

// Of one kind of model and one method, over seeds.
struct Row {
  Counts nodes, edges, backups;
  int decoys_found = 0, decoys = 0;
};
using Table = std::map<std::string, Row>;  // by method

std::vector<double> MeanValues(absl::Span<const v1::CircuitPart> parts) {
  std::vector<double> means(parts.empty() ? 0 : parts[0].values_size());
  for (size_t i = 0; i < means.size(); ++i) {
    for (const double value : Column(parts, static_cast<int>(i)))
      means[i] += value / static_cast<double>(parts.size());
  }
  return means;
}

// The larger of the two by size.
std::vector<double> Larger(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> larger;
  for (size_t i = 0; i < a.size(); ++i) larger.push_back(std::max(std::abs(a[i]), std::abs(b[i])));
  return larger;
}

// All methods on one model.
class Trial {
 public:
  Trial(ModelClient& client, const v1::GetModelResponse& model, const Truth& truth)
      : truth_(truth), graph_(model) {
    context_.client = &client;
    context_.model = model;
    context_.concurrency = 2;
  }

  absl::Status Run(Table& table) {
    ABSTRACT_RETURN_IF_ERROR(MakeTasks());
    ABSTRACT_RETURN_IF_ERROR(Patch(table));
    const std::pair<const char*, v1::AttributionMethod> methods[] = {
        {"2 gradient (AtP, EAP)", v1::ATTRIBUTION_METHOD_GRADIENT},
        {"3 relevance (RelP)", v1::ATTRIBUTION_METHOD_RELEVANCE},
        {"4 integrated gradients", v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS}};
    for (const auto& [name, method] : methods) ABSTRACT_RETURN_IF_ERROR(Attribute(name, method, table));
    return FindAll(table);
  }

 private:
  CircuitProbe ProbeBy(v1::AttributionMethod method) const {
    return CircuitProbe(context_, graph_, truth_.tokens, {method, 5});
  }

  absl::Status MakeTasks() {
    const CircuitProbe probe = ProbeBy(v1::ATTRIBUTION_METHOD_GRADIENT);
    for (CircuitTask task : truth_.noising) {
      ABSTRACT_ASSIGN_OR_RETURN(const v1::CircuitPart part, probe.Metrics(task));
      task.gap = part.values(1) - part.values(0);
      task.length = static_cast<int>(part.values(2));
      tasks_.noising.push_back(task);
      tasks_.denoising.push_back(task.Reversed());
    }
    return absl::OkStatus();
  }

  absl::Status Patch(Table& table) {
    const CircuitProbe probe = ProbeBy(v1::ATTRIBUTION_METHOD_GRADIENT);
    std::vector<Node> neurons;
    for (int i = graph_.head_count(); i < graph_.node_count(); ++i) neurons.push_back(graph_.node(i));
    const auto effects = [&](const std::vector<CircuitTask>& tasks) -> absl::StatusOr<std::vector<double>> {
      std::vector<v1::CircuitPart> parts;
      for (const CircuitTask& task : tasks) {
        ABSTRACT_ASSIGN_OR_RETURN(v1::CircuitPart part, probe.HeadEffects(task));
        ABSTRACT_ASSIGN_OR_RETURN(const v1::CircuitPart of_neurons, probe.NodeEffects(task, neurons));
        part.mutable_values()->MergeFrom(of_neurons.values());
        parts.push_back(std::move(part));
      }
      return MeanValues(parts);
    };
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<double> noising, effects(tasks_.noising));
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<double> denoising, effects(tasks_.denoising));
    Score({noising, {}, noising}, table["0 patching, noising"]);
    Score({Larger(noising, denoising), {}, Larger(noising, denoising)}, table["1 patching, both ways"]);
    return absl::OkStatus();
  }

  absl::Status Attribute(const std::string& name, v1::AttributionMethod method, Table& table) {
    v1::CircuitResults ignored;
    ABSTRACT_ASSIGN_OR_RETURN(const CircuitScores scores,
                              ScoreEverything(context_, ProbeBy(method), tasks_, ignored));
    const std::vector<double> nodes = Larger(scores.noising_nodes, scores.denoising_nodes);
    Score({nodes, scores.mean_edges, nodes}, table[name]);
    return absl::OkStatus();
  }

  // Everything that `abstract circuit` does to find one.
  absl::Status FindAll(Table& table) {
    CircuitOptions options;
    options.least_effect = kLeastEffect;
    v1::CircuitResults results;
    const CircuitProbe probe = ProbeBy(options.attribution.method);
    ABSTRACT_RETURN_IF_ERROR(FindCircuit(context_, probe, options, tasks_, results).status());
    Answer answer{std::vector<double>(graph_.node_count()), std::vector<double>(graph_.edge_count()),
                  std::vector<double>(graph_.node_count())};
    for (const v1::MeasuredNode& node : results.nodes()) {
      if (node.role() == v1::CIRCUIT_ROLE_DECOY) continue;
      const int number = graph_.NumberOf(NodeOf(node));
      answer.nodes[number] = Size(node);
      if (node.role() == v1::CIRCUIT_ROLE_BACKUP) answer.backups[number] = Size(node);
    }
    for (const v1::MeasuredEdge& edge : results.edges()) {
      answer.edges[graph_.EdgeNumber(absl::StrCat(edge.sender(), "->", edge.receiver()))] =
          std::max(std::abs(edge.noising().mean()), std::abs(edge.denoising().mean()));
    }
    Score(answer, table["5 circuit"]);
    return absl::OkStatus();
  }

  void Score(const Answer& answer, Row& row) const {
    std::vector<bool> nodes, backups, edges;
    std::vector<double> of_backups;
    for (int i = 0; i < graph_.node_count(); ++i) {
      const std::string name = graph_.node(i).name();
      const bool is_backup = truth_.backups.count(name) > 0, is_node = truth_.nodes.count(name) > 0;
      nodes.push_back(is_node || is_backup);
      const bool is_found = std::abs(answer.nodes[i]) >= kLeastEffect;
      row.decoys_found += is_found && truth_.decoys.count(name) > 0;
      if (is_node) continue;  // backups are told from bystanders
      backups.push_back(is_backup);
      of_backups.push_back(answer.backups[i]);
    }
    row.decoys += static_cast<int>(truth_.decoys.size());
    row.nodes.Add(Judge(answer.nodes, nodes, kLeastEffect));
    if (!truth_.backups.empty()) row.backups.Add(Judge(of_backups, backups, kLeastEffect));
    if (answer.edges.empty()) return;
    for (int i = 0; i < graph_.edge_count(); ++i) {
      edges.push_back(truth_.edges.count(graph_.edge(i)) > 0 ||
                      truth_.backup_edges.count(graph_.edge(i)) > 0);
    }
    row.edges.Add(Judge(answer.edges, edges, kLeastEffect));
  }

  const Truth& truth_;
  const CircuitGraph graph_;
  ExperimentContext context_;
  CircuitTasks tasks_;
};

absl::Status RunTrial(const std::string& directory, Table& table) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(directory + "/truth.json"));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<PromptPair> pairs, LoadPromptPairs("data/prompts.json"));
  ABSTRACT_ASSIGN_OR_RETURN(const Truth truth, ReadTruth(json, pairs));
  engine::LoadOptions load;
  load.compute_type = engine::NumberFormat::kFloat32;
  load.quantization = engine::kUnquantized;
  load.head = engine::kUnquantized;
  ABSTRACT_ASSIGN_OR_RETURN(auto model, engine::Model::Load(directory, load));
  ABSTRACT_ASSIGN_OR_RETURN(const auto service, LocalService::Start(std::move(model), {}));
  ModelClient client(service->NewStub());
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetModelResponse description, client.GetModel());
  return Trial(client, description, truth).Run(table);
}

std::string CountsText(const Counts& counts, bool is_there) {
  if (!is_there) return "";
  return absl::StrFormat("%.2f %.2f %s", counts.precision(), counts.recall(),
                         std::isnan(counts.auroc()) ? "-" : absl::StrFormat("%.3f", counts.auroc()));
}

void Print(const std::string& kind, int models, const Table& table, std::ostream& out) {
  TextTable text({"method", "nodes: precision, recall, AUROC", "edges", "backups", "decoys found"});
  text.AlignLeft({0});
  for (const auto& [method, row] : table) {
    text.AddRow({method.substr(2), CountsText(row.nodes, true),
                 CountsText(row.edges, row.edges.auroc_count > 0),
                 CountsText(row.backups, row.backups.auroc_count > 0),
                 row.decoys == 0 ? "" : absl::StrCat(row.decoys_found, " of ", row.decoys)});
  }
  out << "\n"
      << kind << ", " << models << (models == 1 ? " model\n" : " models\n") << text.ToString() << std::flush;
}

// Deletes it at the end.
struct TemporaryFolder {
  std::filesystem::path path;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

}  // namespace

absl::Status RunTruth(const BenchmarkOptions& options, std::ostream& out) {
  const TemporaryFolder folder{std::filesystem::temp_directory_path() /
                               absl::StrCat("abstract-truth-", ::getpid())};
  for (const make_planted::Variant& variant : make_planted::Variants()) {
    if (!options.kinds.empty() && std::count(options.kinds.begin(), options.kinds.end(), variant.name) == 0)
      continue;
    Table table;
    for (int seed = 1; seed <= options.seeds; ++seed) {
      make_planted::PlantedOptions planted;
      planted.variant = variant.name;
      planted.seed = static_cast<uint64_t>(seed);
      planted.layers = 4 + 2 * (seed % 3);
      const std::string directory = (folder.path / absl::StrCat(variant.name, seed)).string();
      std::filesystem::create_directories(folder.path);
      ABSTRACT_ASSIGN_OR_RETURN(const auto model, make_planted::MakePlanted(planted));
      ABSTRACT_RETURN_IF_ERROR(make_planted::WritePlanted(directory, model));
      ABSTRACT_RETURN_IF_ERROR(RunTrial(directory, table));
    }
    Print(absl::StrCat("planted ", variant.name), options.seeds, table, out);
  }
  for (const std::string& directory : options.trained) {
    Table table;
    ABSTRACT_RETURN_IF_ERROR(RunTrial(directory, table));
    Print(absl::StrCat("trained ", std::filesystem::path(directory).filename().string()), 1, table, out);
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
