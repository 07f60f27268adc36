#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/baseline.h"
#include "clients/lib/prompt_import.h"
#include "clients/lib/text_table.h"
#include "services/common/data_path.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr int kSamplesPerClass = 3;

struct BaselineFlags {
  StudyFlags study;
  OpeningFlags openings;
  std::string borderline;
  int max_new_tokens = 64;
};

std::string RatesTable(const v1::BaselineResults& results) {
  TextTable table({"category", "harmful refused", "harmless refused", "prompts"});
  const auto add = [&](const std::string& name, const v1::Rate& harmful, const v1::Rate& harmless) {
    table.AddRow({name, RateText(harmful), RateText(harmless),
                  absl::StrCat(harmful.total_count() + harmless.total_count())});
  };
  for (const v1::CategoryRates& category : results.categories()) {
    add(category.category(), category.harmful(), category.harmless());
  }
  add("all", results.harmful(), results.harmless());
  add("all, at the start", results.harmful_at_start(), results.harmless_at_start());
  return table.ToString();
}

// Of harmless prompts that look harmful; nothing where none were asked.
std::string BorderlineTable(const v1::BaselineResults& results) {
  if (!results.has_borderline()) return "";
  TextTable table({"looks harmful by", "refused", "prompts"});
  const auto add = [&](const std::string& name, const v1::Rate& rate) {
    table.AddRow({name, RateText(rate), absl::StrCat(rate.total_count())});
  };
  for (const v1::BorderlineRate& category : results.borderline_categories())
    add(category.category(), category.rate());
  add("all", results.borderline());
  add("all, at the start", results.borderline_at_start());
  return absl::StrCat("\nHarmless prompts that look harmful\n", table.ToString());
}

std::string SamplesTable(const v1::BaselineResults& results) {
  TextTable table({"class", "prompt", "answer", "judged", "logit diff."});
  table.AlignLeft({1, 2, 3});
  for (const v1::PromptClass prompt_class :
       {v1::PROMPT_CLASS_HARMFUL, v1::PROMPT_CLASS_HARMLESS, v1::PROMPT_CLASS_BORDERLINE}) {
    int shown = 0;
    for (const v1::JudgedResponse& response : results.responses()) {
      if (response.prompt_class() != prompt_class || shown++ >= kSamplesPerClass) continue;
      table.AddRow({std::string(PromptClassName(prompt_class)), OneLine(response.prompt(), 48),
                    OneLine(response.response(), 56), response.refused() ? "refused" : "answered",
                    absl::StrFormat("%+.2f", response.logit_difference())});
    }
  }
  return table.ToString();
}

absl::Status RunCommand(Tool& tool, const BaselineFlags& flags) {
  BaselineOptions options;
  ABSTRACT_ASSIGN_OR_RETURN(options.judge, RefusalJudge::Load(DataPath(flags.openings.refusal_phrases)));
  ABSTRACT_ASSIGN_OR_RETURN(options.openings, flags.openings.Load());
  options.max_new_tokens = flags.max_new_tokens;
  ABSTRACT_ASSIGN_OR_RETURN(const auto run, StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_BASELINE));
  options.pairs = run->pairs();
  if (!flags.borderline.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(PromptList list,
                              LoadPromptList(DataPath(flags.borderline), v1::PROMPT_CLASS_BORDERLINE));
    list.source.set_path(flags.borderline);
    for (const ListedPrompt& prompt : list.prompts) {
      options.borderline.push_back({prompt.id, prompt.category, prompt.text});
    }
    run->AddSource(list.source);
  }
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(BaselineFingerprint(run->context(), options)));
  if (run->is_finished()) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(v1::BaselineResults results, RunBaseline(run->context(), options));
  ABSTRACT_RETURN_IF_ERROR(run->Finish(results));
  if (tool.json) return PrintJson(tool, results);
  tool.Print(absl::StrCat("Refusals of the unchanged model, with 95 % Wilson intervals\n",
                          RatesTable(results), BorderlineTable(results), "\n", SamplesTable(results)));
  return absl::OkStatus();
}

}  // namespace

void AddBaselineCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("baseline", "Measure how often the unmodified model refuses");
  const auto flags = std::make_shared<BaselineFlags>();
  flags->study.AddTo(command);
  command.AddOption(
      "--borderline", flags->borderline,
      "Harmless prompts that look harmful, to be asked too: data/borderline_prompts.json, or as XSTest and "
      "OR-Bench publish theirs");
  command.AddOption("--max-new-tokens", flags->max_new_tokens, "Longest answer").InRange(1, 1 << 20);
  flags->openings.AddTo(command);
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
