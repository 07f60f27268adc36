#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/circuit.h"
#include "clients/lib/text_table.h"
#include "services/common/data_path.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct CircuitFlags {
  StudyFlags study;
  OpeningFlags openings;
  std::string test_prompts = "data/heldout_prompts.json";
  int test_limit = 30;
  std::string method = "integrated";
  CircuitOptions options;
  int show = 15;
};

v1::AttributionMethod MethodOf(const std::string& name) {
  if (name == "gradient") return v1::ATTRIBUTION_METHOD_GRADIENT;
  if (name == "relevance") return v1::ATTRIBUTION_METHOD_RELEVANCE;
  return v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS;
}

absl::StatusOr<CircuitOptions> MakeOptions(const CircuitFlags& flags, bool test_prompts_were_named) {
  CircuitOptions options = flags.options;
  ABSTRACT_ASSIGN_OR_RETURN(options.openings, flags.openings.Load());
  options.attribution.method = MethodOf(flags.method);
  const std::string path = DataPath(flags.test_prompts);
  if (!path.empty() && (test_prompts_were_named || std::filesystem::exists(path))) {
    ABSTRACT_ASSIGN_OR_RETURN(options.test_pairs, LoadPromptPairs(path, flags.test_limit));
  }
  return options;
}

std::string PText(double p) { return p < 0.001 ? absl::StrFormat("%.1e", p) : absl::StrFormat("%.3f", p); }

std::string MemberTable(const v1::CircuitResults& results, int count) {
  TextTable table({"node", "noising", "denoising", "p", "attribution"});
  table.AlignLeft({0});
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_MEMBER || count-- <= 0) continue;
    table.AddRow({node.name(), EstimateText(node.noising()), EstimateText(node.denoising()),
                  PText(node.p_value()), absl::StrFormat("%.3f", node.attribution())});
  }
  return table.ToString();
}

std::string BackupTable(const v1::CircuitResults& results, int count) {
  TextTable table({"node", "with these ablated", "noising then", "alone", "p"});
  table.AlignLeft({0, 1});
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_BACKUP || count-- <= 0) continue;
    table.AddRow({node.name(), absl::StrJoin(node.backs_up(), " "), EstimateText(node.conditional()),
                  EstimateText(node.noising()), PText(node.p_value())});
  }
  return table.ToString();
}

std::string DecoyTable(const v1::CircuitResults& results, int count) {
  TextTable table({"node", "writes into the logits", "noising", "denoising"});
  table.AlignLeft({0});
  for (const v1::MeasuredNode& node : results.nodes()) {
    if (node.role() != v1::CIRCUIT_ROLE_DECOY || count-- <= 0) continue;
    table.AddRow({node.name(), absl::StrFormat("%.3f", node.direct_attribution()),
                  EstimateText(node.noising()), EstimateText(node.denoising())});
  }
  return table.ToString();
}

std::string EdgeTable(const v1::CircuitResults& results, int count) {
  TextTable table({"edge", "noising", "denoising", "p", "attribution"});
  table.AlignLeft({0});
  for (int i = 0; i < std::min(count, results.edges_size()); ++i) {
    const v1::MeasuredEdge& edge = results.edges(i);
    table.AddRow({absl::StrCat(edge.sender(), " -> ", edge.receiver()), EstimateText(edge.noising()),
                  EstimateText(edge.denoising()), PText(edge.p_value()),
                  absl::StrFormat("%.3f", edge.attribution())});
  }
  return table.ToString();
}

std::string CurveTable(const v1::CircuitResults& results) {
  TextTable table(
      {"best share", "edges", "faithful", "heads, MLPs", "faithful", "heads, neurons", "faithful"});
  const v1::CircuitCurve* const curves[] = {&results.edge_curve(), &results.node_curve(),
                                            &results.neuron_curve()};
  for (int i = 0; i < results.edge_curve().points_size(); ++i) {
    std::vector<std::string> row = {absl::StrFormat("%.1f %%", 100 * results.edge_curve().points(i).share())};
    for (const v1::CircuitCurve* curve : curves) {
      row.push_back(absl::StrCat(curve->points(i).count()));
      row.push_back(absl::StrFormat("%.3f", curve->points(i).faithfulness().mean()));
    }
    table.AddRow(row);
  }
  std::vector<std::string> cpr = {"CPR"}, cmd = {"CMD"};
  for (const v1::CircuitCurve* curve : curves) {
    cpr.insert(cpr.end(), {"", absl::StrFormat("%.3f", curve->cpr())});
    cmd.insert(cmd.end(), {"", absl::StrFormat("%.3f", curve->cmd())});
  }
  table.AddRow(cpr);
  table.AddRow(cmd);
  return absl::StrCat(
      "What circuits of the best do, everything else as in the harmless run: 1 is all that the model "
      "does\n",
      table.ToString());
}

// Of the nodes that were found, where any were.
std::string NodesText(const v1::CircuitResults& results) {
  if (!results.has_faithfulness()) {
    return "no node has an effect as large as --least-effect: there are none to be tested\n";
  }
  const auto needed = std::count_if(results.minimality().begin(), results.minimality().end(),
                                    [](const v1::MemberDrop& drop) { return drop.drop().lower() > 0; });
  std::string text = absl::StrCat(
      "these nodes alone do ", EstimateText(results.faithfulness()),
      " of what the model does, everything but them ", EstimateText(results.complement_faithfulness()),
      "\nthey have ", absl::StrFormat("%.3f %%", 100 * results.parameter_share()), " of the parameters; ",
      needed, " of ", results.minimality_size(), " are missed when left out of them\n");
  if (results.has_specificity()) {
    absl::StrAppend(&text, "other harmless prompts move by ", EstimateText(results.specificity()),
                    " nats when these nodes are patched among them, and by ",
                    EstimateText(results.random_specificity()), " with as many random nodes\n");
  }
  return text;
}

std::string StabilityText(const v1::CircuitStability& stability) {
  if (stability.resample_count() < 2)
    return "stability was not measured: it takes two --resamples at least\n";
  return absl::StrFormat(
      "circuits of %d edges from %d resamples of the pairs share %.2f of their edges (Jaccard; 5th "
      "percentile "
      "%.2f)\n",
      stability.edge_count(), stability.resample_count(), stability.mean_jaccard(), stability.low_jaccard());
}

// "On 30 other pairs"
std::string TestedOn(const v1::CircuitResults& results) {
  const std::set<std::string> chosen(results.pair_ids().begin(), results.pair_ids().end());
  const auto both = std::count_if(results.test_pair_ids().begin(), results.test_pair_ids().end(),
                                  [&](const std::string& id) { return chosen.count(id) > 0; });
  const int count = results.test_pair_ids_size();
  if (both == 0) return absl::StrCat("On ", count, " other pairs");
  if (both == count) return absl::StrCat("On ", count, " pairs, all of which it was chosen on");
  return absl::StrCat("On ", count, " pairs, ", both, " of which it was chosen on");
}

std::string AgreementText(std::string_view what, const v1::AttributionAgreement& agreement) {
  return absl::StrCat(
      "attribution and exact patching of ", agreement.component_count(), " ", std::string(what),
      ": Spearman ", absl::StrFormat("%.3f", agreement.spearman()), ", leaders missed: ",
      agreement.missed_leaders().empty() ? "none" : absl::StrJoin(agreement.missed_leaders(), " "), "\n");
}

int CountOf(const v1::CircuitResults& results, v1::CircuitRole role) {
  return static_cast<int>(std::count_if(results.nodes().begin(), results.nodes().end(),
                                        [&](const v1::MeasuredNode& node) { return node.role() == role; }));
}

std::string Describe(const v1::CircuitResults& results, int show) {
  std::string text = absl::StrCat(
      "Effects of patching one node at all positions (0: none, 1: all the way to the other prompt), ",
      results.pair_ids_size(), " pairs, ", results.run_count(), " runs, 95 % bootstrap intervals\n\n",
      CountOf(results, v1::CIRCUIT_ROLE_MEMBER), " nodes\n", MemberTable(results, show));
  if (CountOf(results, v1::CIRCUIT_ROLE_BACKUP) > 0) {
    absl::StrAppend(&text, "\n", CountOf(results, v1::CIRCUIT_ROLE_BACKUP),
                    " backups, which act once others are ablated\n", BackupTable(results, show));
  }
  if (CountOf(results, v1::CIRCUIT_ROLE_DECOY) > 0) {
    absl::StrAppend(&text, "\n", CountOf(results, v1::CIRCUIT_ROLE_DECOY),
                    " decoys, which write into the logits and move nothing\n", DecoyTable(results, show));
  }
  absl::StrAppend(&text, "\n", results.edges_size(), " edges, by exact path patching\n",
                  EdgeTable(results, show), "\n", TestedOn(results), "\n", CurveTable(results),
                  NodesText(results), StabilityText(results.stability()),
                  AgreementText("heads", results.head_agreement()),
                  AgreementText("neuron groups", results.neuron_group_agreement()));
  return text;
}

absl::Status RunCommand(Tool& tool, const CircuitFlags& flags, bool test_prompts_were_named) {
  ABSTRACT_ASSIGN_OR_RETURN(CircuitOptions options, MakeOptions(flags, test_prompts_were_named));
  ABSTRACT_ASSIGN_OR_RETURN(const auto run, StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_CIRCUIT));
  options.pairs = run->pairs();
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(CircuitFingerprint(run->context(), options)));
  if (run->is_finished()) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(v1::CircuitResults results, RunCircuitExperiment(run->context(), options));
  ABSTRACT_RETURN_IF_ERROR(run->Finish(results));
  if (tool.json) return PrintJson(tool, results);
  tool.Print(Describe(results, flags.show));
  return absl::OkStatus();
}

}  // namespace

void AddCircuitCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "circuit", "Find the circuit of refusal: nodes, backups and edges, each measured, and put to the test");
  const auto flags = std::make_shared<CircuitFlags>();
  flags->study.AddTo(command);
  CircuitOptions& options = flags->options;
  const Option test_prompts = command.AddOption(
      "--test-prompts", flags->test_prompts,
      "Pairs to test the circuit on; \"\": none, and every third of --prompts is kept for that");
  command.AddOption("--test-limit", flags->test_limit, "Test on the first so many; 0: all").NonNegative();
  command
      .AddOption("--method", flags->method,
                 "How attribution ranks: integrated gradients, gradient (AtP), or relevance (RelP)")
      .OneOf({"integrated", "gradient", "relevance"});
  command.AddOption("--steps", options.attribution.steps, "Steps of integrated gradients").InRange(1, 64);
  command
      .AddOption(
          "--least-decoy", options.least_decoy,
          "What writes so much of the metric's difference into the logits and moves nothing is a decoy")
      .NonNegative();
  command.AddOption("--least-effect", options.least_effect, "Effects below it count as none").NonNegative();
  command
      .AddOption("--neurons", options.neuron_count,
                 "Single neurons to patch exactly, of each direction's best")
      .NonNegative();
  command.AddOption("--edges", options.edge_count, "Edges to patch exactly").NonNegative();
  command
      .AddOption("--leaders", options.leader_count,
                 "Nodes to ablate one by one in a round that looks for backups")
      .NonNegative();
  command.AddOption("--rounds", options.most_rounds, "Such rounds at most").NonNegative();
  command
      .AddOption("--resamples", options.resample_count,
                 "Resamples of the pairs, for stability; 0: not measured")
      .InRange(0, kMostResamples);
  command.AddOption("--show", flags->show, "Rows of each table to print").NonNegative();
  flags->openings.AddTo(command);
  tool.SetActionOf(command,
                   [&tool, flags, test_prompts] { return RunCommand(tool, *flags, test_prompts.given()); });
}

}  // namespace mechinterp
