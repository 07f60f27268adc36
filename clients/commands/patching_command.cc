#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/patching.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct PatchingFlags {
  StudyFlags study;
  OpeningFlags openings;
  std::string direction = "both";
  std::string positions = "decision";
  int neurons_per_group = 0;
  int show = 12;
};

absl::Status SetPositions(const std::string& text, PatchingOptions& options) {
  if (text == "all") options.all_positions = true;
  if (text == "all" || text == "decision") return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (const std::string& part : parts) {
    int32_t position = 0;
    if (!absl::SimpleAtoi(part, &position) || position >= 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--positions: \"", text, "\" is not decision, all, or positions from the end as in -6,-1"));
    }
    options.positions.push_back(position);
  }
  std::sort(options.positions.begin(), options.positions.end());
  return absl::OkStatus();
}

std::string RankingTable(const v1::PatchingResults& results, int count) {
  TextTable table({"rank", "component", "score", "denoising", "noising"});
  table.AlignLeft({1});
  for (int i = 0; i < std::min(count, results.ranking_size()); ++i) {
    const v1::RankedComponent& ranked = results.ranking(i);
    table.AddRow({absl::StrCat(ranked.rank()), ranked.component().name(),
                  absl::StrFormat("%.3f", ranked.score()),
                  ranked.has_denoising() ? EstimateText(ranked.denoising()) : "",
                  ranked.has_noising() ? EstimateText(ranked.noising()) : ""});
  }
  return table.ToString();
}

std::string LayerTable(const v1::PatchingResults& results) {
  double largest = 1e-9;
  for (const v1::LayerImportance& layer : results.layers()) largest = std::max(largest, layer.importance());
  TextTable table({"layer", "importance", "heads", "neurons", ""});
  table.AlignLeft({4});
  for (const v1::LayerImportance& layer : results.layers()) {
    const int width = static_cast<int>(30 * std::max(0.0, layer.importance()) / largest + 0.5);
    table.AddRow({absl::StrCat(layer.layer()), absl::StrFormat("%.3f", layer.importance()),
                  absl::StrFormat("%.3f", layer.head_importance()),
                  absl::StrFormat("%.3f", layer.neuron_importance()),
                  std::string(static_cast<size_t>(width), '#')});
  }
  return table.ToString();
}

absl::Status RunCommand(Tool& tool, const PatchingFlags& flags) {
  PatchingOptions options;
  ABSTRACT_ASSIGN_OR_RETURN(options.openings, flags.openings.Load());
  options.neurons_per_group = flags.neurons_per_group;
  if (flags.direction == "denoising") options.directions = {v1::PATCH_DIRECTION_DENOISING};
  if (flags.direction == "noising") options.directions = {v1::PATCH_DIRECTION_NOISING};
  ABSTRACT_RETURN_IF_ERROR(SetPositions(flags.positions, options));
  ABSTRACT_ASSIGN_OR_RETURN(const auto run, StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_PATCHING));
  options.pairs = run->pairs();
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(PatchingFingerprint(run->context(), options)));
  if (run->is_finished()) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(v1::PatchingResults results, RunPatching(run->context(), options));
  ABSTRACT_RETURN_IF_ERROR(run->Finish(results));
  if (results.pair_ids_size() < static_cast<int>(options.pairs.size())) {
    tool.Note(absl::StrCat(static_cast<int>(options.pairs.size()) - results.pair_ids_size(),
                           " pairs of unequal length were left out"));
  }
  if (tool.json) return PrintJson(tool, results);
  tool.Print(absl::StrCat(
      "Effects of patching on the logit difference (0: none, 1: all the way to the source run), ",
      results.run_count(), " runs, 95 % bootstrap intervals\n", RankingTable(results, flags.show),
      "\nImportance of layers\n", LayerTable(results)));
  return absl::OkStatus();
}

}  // namespace

void AddPatchingCommand(Command app, Tool& tool) {
  const Command command =
      app.AddSubcommand("patching", "Patch activations between paired prompts and rank components by effect");
  const auto flags = std::make_shared<PatchingFlags>();
  flags->study.AddTo(command);
  command
      .AddOption("--direction", flags->direction, "Harmful into harmless (denoising), the reverse, or both")
      .OneOf({"denoising", "noising", "both"});
  command.AddOption(
      "--positions", flags->positions,
      "decision (last instruction token and template tail), all (pairs of equal length only), or from "
      "the end as in -6,-1");
  command
      .AddOption("--neurons-per-group", flags->neurons_per_group,
                 "MLP neurons patched together; 0: a sixteenth of the layer")
      .NonNegative();
  command.AddOption("--show", flags->show, "Components to print").NonNegative();
  flags->openings.AddTo(command);
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
