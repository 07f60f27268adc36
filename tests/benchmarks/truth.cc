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
constexpr size_t kMostPairs = 32;

// What a model's truth.json says.
struct Truth {
  std::set<std::string> nodes, edges, backups, backup_edges, decoys;
  std::vector<CircuitTask> noising;  // of the pairs that it holds for; without gaps
  // Whether its nodes are whole MLPs, not neurons.
  bool of_mlps = false;
};

// truth.json's receivers, whose MLPs have their senders' names, as AttributionEdge has them.
std::string EdgeName(const std::string& edge) { return edge + (edge.ends_with(".mlp") ? "_in" : ""); }

v1::Prompt TokenPrompt(const Json& ids) {
  v1::Prompt prompt;
  for (const Json& id : ids) prompt.mutable_token_ids()->add_ids(id.get<uint32_t>());
  return prompt;
}

MetricTokens TokensOf(const Json& metric) {
  return {metric.at("refusal_tokens").get<std::vector<uint32_t>>(),
          metric.at("compliance_tokens").get<std::vector<uint32_t>>()};
}

Truth ReadTruth(const Json& json, const std::vector<PromptPair>& pairs) {
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
  truth.of_mlps = json.value("origin", "planted") == "trained";
  const auto ids = json.at("holds_for").get<std::set<std::string>>();
  for (const PromptPair& pair : pairs) {
    if (ids.count(pair.id) > 0 && !json.contains("pairs")) {
      truth.noising.push_back(TaskOf(pair, TokensOf(json.at("metric"))));
    }
  }
  for (const Json& pair : json.value("pairs", Json::array())) {
    CircuitTask task;
    task.pair_id = pair.at("id").get<std::string>();
    task.prompt = TokenPrompt(pair.at("clean"));
    task.source = TokenPrompt(pair.at("source"));
    task.metrics = MetricOptionsOf(TokensOf(pair.at("metric")));
    if (ids.count(task.pair_id) > 0 && truth.noising.size() < kMostPairs)
      truth.noising.push_back(std::move(task));
  }
  return truth;
}

// What one method says of one model: scores of what is judged as nodes (heads with neurons, or heads with
// MLPs), once as nodes and once as backups, and of edges; empty where it has none.
struct Answer {
  std::vector<double> nodes, edges, backups;
};

// Of one kind of model and one method, over seeds.
struct Row {
  Counts nodes, edges, backups;
  int decoys_found = 0, decoys = 0;

  void Add(const Row& other) {
    nodes.Add(other.nodes);
    edges.Add(other.edges);
    backups.Add(other.backups);
    decoys_found += other.decoys_found;
    decoys += other.decoys;
  }
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
    return CircuitProbe(context_, graph_, {method, 5});
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
      std::vector<v1::CircuitPart> heads, others;
      for (const CircuitTask& task : tasks) {
        ABSTRACT_ASSIGN_OR_RETURN(heads.emplace_back(), probe.HeadEffects(task));
        ABSTRACT_ASSIGN_OR_RETURN(others.emplace_back(),
                                  truth_.of_mlps ? probe.MlpEffects(task) : probe.NodeEffects(task, neurons));
      }
      std::vector<double> all = MeanValues(heads);
      const std::vector<double> rest = MeanValues(others);
      all.insert(all.end(), rest.begin(), rest.end());
      return all;
    };
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<double> noising, effects(tasks_.noising));
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<double> denoising, effects(tasks_.denoising));
    Score({noising, {}, noising}, table["0 patching, noising"]);
    const std::vector<double> larger = Larger(noising, denoising);
    Score({larger, {}, larger}, table["1 patching, both ways"]);
    return absl::OkStatus();
  }

  absl::Status Attribute(const std::string& name, v1::AttributionMethod method, Table& table) {
    v1::CircuitResults ignored;
    ABSTRACT_ASSIGN_OR_RETURN(const CircuitScores scores,
                              ScoreEverything(context_, ProbeBy(method), tasks_, ignored));
    const std::vector<double> nodes = Larger(Judged(scores.noising_nodes), Judged(scores.denoising_nodes));
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
    Answer answer;
    answer.nodes.resize(truth_.of_mlps ? graph_.head_count() + MlpCount() : graph_.node_count());
    answer.backups = answer.nodes;
    answer.edges.resize(graph_.edge_count());
    const auto raise = [](double& score, double size) { score = std::max(score, size); };
    for (const v1::MeasuredNode& node : results.nodes()) {
      if (node.role() == v1::CIRCUIT_ROLE_DECOY) continue;
      const int place = PlaceOf(NodeOf(node));
      raise(answer.nodes[place], Size(node));
      if (node.role() == v1::CIRCUIT_ROLE_BACKUP) raise(answer.backups[place], Size(node));
    }
    for (const v1::MeasuredEdge& edge : results.edges()) {
      const double size = std::max(std::abs(edge.noising().mean()), std::abs(edge.denoising().mean()));
      answer.edges[graph_.EdgeNumber(absl::StrCat(edge.sender(), "->", edge.receiver()))] = size;
      // A variable may be spread over an MLP's neurons, none of which has an effect by itself.
      for (int layer = 0; truth_.of_mlps && layer < MlpCount(); ++layer) {
        if (edge.sender() == Node{layer, false, 0}.sender())
          raise(answer.nodes[graph_.head_count() + layer], size);
      }
    }
    Score(answer, table["5 circuit"]);
    return absl::OkStatus();
  }

  int MlpCount() const { return static_cast<int>(context_.model.layer_count()); }

  // A node's place among what is judged.
  int PlaceOf(const Node& node) const {
    return truth_.of_mlps && !node.is_head ? graph_.head_count() + node.layer : graph_.NumberOf(node);
  }
  // Scores of heads and neurons as those of what is judged: an MLP's is the sum of its neurons'.
  std::vector<double> Judged(const std::vector<double>& scores) const {
    if (!truth_.of_mlps) return scores;
    std::vector<double> sums(graph_.head_count() + MlpCount());
    for (int i = 0; i < graph_.node_count(); ++i) sums[PlaceOf(graph_.node(i))] += scores[i];
    return sums;
  }

  void Score(const Answer& answer, Row& row) const {
    std::vector<bool> nodes, backups, edges;
    std::vector<double> of_backups;
    for (size_t i = 0; i < answer.nodes.size(); ++i) {
      const int number = static_cast<int>(i);
      const std::string name = truth_.of_mlps && number >= graph_.head_count()
                                   ? Node{number - graph_.head_count(), false, 0}.sender()
                                   : graph_.node(number).name();
      const bool is_backup = truth_.backups.count(name) > 0, is_node = truth_.nodes.count(name) > 0;
      nodes.push_back(is_node || is_backup);
      row.decoys_found += std::abs(answer.nodes[i]) >= kLeastEffect && truth_.decoys.count(name) > 0;
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
  const Truth truth = ReadTruth(json, pairs);
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
  std::filesystem::create_directories(folder.path);
  Table all_planted, all_trained;
  int planted_count = 0;
  const auto add = [](const Table& table, Table& all) {
    for (const auto& [method, row] : table) all[method].Add(row);
  };
  for (const make_planted::Variant& variant : make_planted::Variants()) {
    if (!options.kinds.empty() && std::count(options.kinds.begin(), options.kinds.end(), variant.name) == 0) {
      continue;
    }
    Table table;
    for (int seed = 1; seed <= options.seeds; ++seed, ++planted_count) {
      make_planted::PlantedOptions planted;
      planted.variant = variant.name;
      planted.seed = static_cast<uint64_t>(seed);
      planted.layers = 4 + 2 * (seed % 3);
      const std::string directory = (folder.path / absl::StrCat(variant.name, seed)).string();
      ABSTRACT_ASSIGN_OR_RETURN(const auto model, make_planted::MakePlanted(planted));
      ABSTRACT_RETURN_IF_ERROR(make_planted::WritePlanted(directory, model));
      ABSTRACT_RETURN_IF_ERROR(RunTrial(directory, table));
    }
    Print(absl::StrCat("planted ", variant.name), options.seeds, table, out);
    add(table, all_planted);
  }
  if (planted_count > 0) Print("all planted", planted_count, all_planted, out);
  for (const std::string& directory : options.trained) {
    Table table;
    ABSTRACT_RETURN_IF_ERROR(RunTrial(directory, table));
    Print(absl::StrCat("trained ", std::filesystem::path(directory).filename().string()), 1, table, out);
    add(table, all_trained);
  }
  if (!options.trained.empty()) {
    Print("all trained", static_cast<int>(options.trained.size()), all_trained, out);
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
