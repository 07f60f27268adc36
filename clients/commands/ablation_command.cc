#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/ablation.h"
#include "clients/experiments/ablation_edits.h"
#include "clients/lib/text_table.h"
#include "services/common/data_path.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct AblationFlags {
  StudyFlags study;
  std::string refusal_phrases = "data/refusal_phrases.json";
  std::string patching_results;  // Default: in the output folder.
  std::string held_out = "data/heldout_prompts.json";
  int held_out_limit = 60;
  std::vector<std::string> methods = {"mean"};
  std::vector<int> top_k = {0, 1, 2, 3, 5, 8, 10, 16, 20};
  int random_draws = 5;
  std::string ablate_at = "decision";
  int criterion_k = 0;
  double threshold = 30;
  int max_new_tokens = 64;
};

v1::AblationMethod MethodOf(const std::string& name) {
  if (name == "zero") return v1::ABLATION_METHOD_ZERO;
  return name == "resample" ? v1::ABLATION_METHOD_RESAMPLE : v1::ABLATION_METHOD_MEAN;
}

absl::StatusOr<v1::PatchingResults> ReadRanking(const std::string& path) {
  v1::PatchingResults results;
  if (absl::Status status = ReadResults(path, &results); !status.ok()) {
    return WithContext(status, "the ranking comes from the results of `abstract patching`");
  }
  return results;
}

absl::StatusOr<AblationOptions> MakeOptions(const AblationFlags& flags, bool held_out_was_named) {
  AblationOptions options;
  ABSTRACT_ASSIGN_OR_RETURN(options.judge, RefusalJudge::Load(DataPath(flags.refusal_phrases)));
  const std::string held_out = DataPath(flags.held_out);
  if (!held_out.empty() && (held_out_was_named || std::filesystem::exists(held_out))) {
    ABSTRACT_ASSIGN_OR_RETURN(options.held_out_pairs, LoadPromptPairs(held_out, flags.held_out_limit));
  }
  options.methods.clear();
  for (const std::string& method : flags.methods) options.methods.push_back(MethodOf(method));
  options.top_counts = flags.top_k;
  options.random_draws = flags.random_draws;
  options.all_positions = flags.ablate_at == "all";
  if (flags.criterion_k > 0) options.criterion_count = flags.criterion_k;
  options.threshold_points = flags.threshold;
  options.max_new_tokens = flags.max_new_tokens;
  return options;
}

std::string CurveTable(const v1::AblationCurve& curve) {
  TextTable table(
      {"ablated", "parameters", "harmful, top", "harmful, random", "harmless, top", "harmless, random"});
  for (const v1::AblationPoint& top : curve.top()) {
    std::string harmful = "";
    std::string harmless = "";
    for (const v1::RandomControlPoint& random : curve.random()) {
      if (random.component_count() != top.component_count()) continue;
      harmful = RateText(random.harmful());
      harmless = RateText(random.harmless());
    }
    table.AddRow({absl::StrCat(top.component_count()),
                  absl::StrFormat("%.3f %%", 100 * top.parameter_share()), RateText(top.harmful()), harmful,
                  RateText(top.harmless()), harmless});
  }
  return table.ToString();
}

std::string Verdict(const v1::SuccessCriterion& criterion, bool was_chosen) {
  return absl::StrFormat(
      "criterion at the top %d%s: refusals drop by %.1f points (more than %.0f: %s), with random components "
      "by %.1f "
      "(less than %.0f: %s): %s\n",
      criterion.component_count(), was_chosen ? " (where top and random lie furthest apart)" : "",
      criterion.top_drop_points(), criterion.threshold_points(), criterion.top_exceeds() ? "yes" : "no",
      criterion.random_drop_points(), criterion.threshold_points(),
      criterion.random_stays_below() ? "yes" : "no", criterion.met() ? "MET" : "NOT MET");
}

std::string HeldOutText(const v1::AblationResults& results) {
  const v1::AblationPoint& before = results.held_out_baseline();
  const v1::AblationPoint& after = results.held_out_top();
  return absl::StrCat("held-out prompts, ", before.harmful().total_count(),
                      " of each class: harmful refused ", RateText(before.harmful()), " -> ",
                      RateText(after.harmful()), ", harmless ", RateText(before.harmless()), " -> ",
                      RateText(after.harmless()), "\n", Verdict(results.held_out_criterion(), false));
}

std::string Describe(const v1::AblationResults& results, bool was_chosen) {
  std::string text = "Share of prompts refused with components ablated together, 95 % Wilson intervals\n";
  for (const v1::AblationCurve& curve : results.curves()) {
    absl::StrAppend(&text, "\n", std::string(MethodName(curve.method())), " ablation\n", CurveTable(curve));
  }
  absl::StrAppend(
      &text, "\n", Verdict(results.criterion(), was_chosen),
      results.has_held_out_criterion() ? HeldOutText(results) : "",
      "Answers were judged, not published: results keep the first 120 characters of a few, and no "
      "changed model was written.\n");
  return text;
}

absl::Status RunCommand(Tool& tool, AblationFlags flags, bool held_out_was_named) {
  if (flags.patching_results.empty())
    flags.patching_results = ResultsPath(flags.study.output_dir, v1::EXPERIMENT_KIND_PATCHING);
  ABSTRACT_ASSIGN_OR_RETURN(const v1::PatchingResults patching, ReadRanking(flags.patching_results));
  ABSTRACT_ASSIGN_OR_RETURN(AblationOptions options, MakeOptions(flags, held_out_was_named));
  options.ranking.assign(patching.ranking().begin(), patching.ranking().end());
  ABSTRACT_ASSIGN_OR_RETURN(const auto run, StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_ABLATION));
  options.pairs = run->pairs();
  if (absl::Status status = CheckSameModel(patching.provenance().model(), run->context().model.identity());
      !status.ok()) {
    return WithContext(status, absl::StrCat(flags.patching_results, " ranks another model's components"));
  }
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(AblationFingerprint(run->context(), options)));
  if (run->is_finished()) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(v1::AblationResults results, RunAblation(run->context(), options));
  results.set_patching_results_path(flags.patching_results);
  ABSTRACT_RETURN_IF_ERROR(run->Finish(results));
  if (tool.json) return PrintJson(tool, results);
  tool.Print(Describe(results, !options.criterion_count.has_value()));
  return absl::OkStatus();
}

void AddOptions(Command command, AblationFlags& flags) {
  flags.study.AddTo(command);
  command.AddOption("--refusal-phrases", flags.refusal_phrases, "File of the phrases that mark a refusal");
  command.AddOption("--patching-results", flags.patching_results,
                    "The ranking; default results/02_patching_results.json in the output folder");
  command
      .AddOption("--methods", flags.methods, "mean, zero, resample, several with commas; the first is judged")
      .SplitAt(',')
      .OneOf({"mean", "zero", "resample"});
  command.AddOption("--top-k", flags.top_k, "How many components to ablate together, several with commas")
      .SplitAt(',')
      .Environment("ABSTRACT_ABLATION_TOP_K")  // ABSTRACT_TOP_K is the sampling option's.
      .NonNegative();
  command.AddOption("--random-draws", flags.random_draws, "Random sets for each size").InRange(0, 1000);
  command
      .AddOption(
          "--ablate-at", flags.ablate_at,
          "Prompt positions: decision (last instruction token and template tail) or all; generated ones "
          "always")
      .OneOf({"decision", "all"});
  command
      .AddOption(
          "--criterion-k", flags.criterion_k,
          "Judge the criterion at this size; 0: at the size up to 10 where top and random lie furthest apart")
      .NonNegative();
  command.AddOption("--threshold", flags.threshold, "The criterion's drop, in percentage points");
  command.AddOption("--held-out-limit", flags.held_out_limit, "Only the first held-out pairs; 0: all")
      .NonNegative();
  command.AddOption("--max-new-tokens", flags.max_new_tokens, "Longest answer").InRange(1, 1 << 20);
}

}  // namespace

void AddAblationCommand(Command app, Tool& tool) {
  const Command command =
      app.AddSubcommand("ablation", "Ablate the top-ranked components and measure refusal rates");
  const auto flags = std::make_shared<AblationFlags>();
  AddOptions(command, *flags);
  const Option held_out =
      command.AddOption("--held-out", flags->held_out,
                        "Prompt pairs that the ranking has not seen, to test the criterion on; \"\": none");
  tool.SetActionOf(command, [&tool, flags, held_out] { return RunCommand(tool, *flags, held_out.given()); });
}

}  // namespace mechinterp
