#include <algorithm>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "clients/commands/study.h"
#include "clients/commands/tool.h"
#include "clients/experiments/direction.h"
#include "clients/lib/prompt_import.h"
#include "clients/lib/results_io.h"
#include "clients/lib/text_table.h"
#include "clients/report/wording.h"
#include "services/common/data_path.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/safetensors_writer.h"

namespace mechinterp {
namespace {

constexpr char kPublishedScores[] = "data/published/llama3_8b_instruct_directions.tsv";
constexpr char kDirectionsFile[] = "directions.safetensors";

struct DirectionFlags {
  StudyFlags study;
  OpeningFlags openings;
  std::string validation_prompts;
  std::string test_prompts = "data/heldout_prompts.json";
  int test_limit = 30;
  std::string texts;
  DirectionOptions options;
  int show = 10;
};

// A line of the file is a text; empty ones are none.
absl::StatusOr<std::vector<std::string>> LoadTexts(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  std::vector<std::string> texts;
  for (const absl::string_view line : absl::StrSplit(absl::StripPrefix(text, "\xef\xbb\xbf"), '\n')) {
    const absl::string_view stripped = absl::StripAsciiWhitespace(line);
    if (stripped.empty()) continue;
    texts.emplace_back(stripped);
    ABSTRACT_RETURN_IF_ERROR(CheckUtf8(absl::StrCat(path, ": text ", texts.size()), texts.back()));
  }
  if (texts.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no text in it"));
  return texts;
}

absl::Status AddPairs(const std::string& name, int limit, std::vector<PromptPair>& pairs,
                      std::vector<v1::PromptSource>& sources) {
  if (name.empty()) return absl::OkStatus();
  ABSTRACT_ASSIGN_OR_RETURN(pairs, LoadPromptPairs(DataPath(name), limit));
  ABSTRACT_ASSIGN_OR_RETURN(sources.emplace_back(), DescribePairs(DataPath(name), pairs));
  sources.back().set_path(name);
  return absl::OkStatus();
}

absl::StatusOr<DirectionOptions> MakeOptions(const DirectionFlags& flags,
                                             std::vector<v1::PromptSource>& sources) {
  DirectionOptions options = flags.options;
  ABSTRACT_ASSIGN_OR_RETURN(options.openings, flags.openings.Load());
  ABSTRACT_ASSIGN_OR_RETURN(options.judge, RefusalJudge::Load(DataPath(flags.openings.refusal_phrases)));
  ABSTRACT_RETURN_IF_ERROR(AddPairs(flags.validation_prompts, 0, options.validation_pairs, sources));
  ABSTRACT_RETURN_IF_ERROR(AddPairs(flags.test_prompts, flags.test_limit, options.test_pairs, sources));
  if (!flags.texts.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(options.texts, LoadTexts(flags.texts));
  }
  return options;
}

std::string Number(double value) { return absl::StrFormat("%.3f", value); }

// The chosen one first, then those that are eligible, by bypass score, then the others.
std::string CandidateTable(const v1::DirectionResults& results, int count) {
  std::vector<const v1::DirectionCandidate*> order;
  for (const v1::DirectionCandidate& candidate : results.candidates()) order.push_back(&candidate);
  const bool is_affine = results.rule() == v1::DIRECTION_RULE_AFFINE;
  std::stable_sort(order.begin(), order.end(), [&](const auto* a, const auto* b) {
    if (a->is_eligible() != b->is_eligible()) return a->is_eligible();
    return is_affine ? a->affine_bypass() < b->affine_bypass() : a->bypass() < b->bypass();
  });
  std::vector<std::string> names = {"position", "layer", "bypass", "induce", "KL"};
  if (is_affine) names.insert(names.end(), {"bypass, set", "KL, set"});
  names.insert(names.end(), {"AUROC", "cosine", ""});
  TextTable table(names);
  for (const v1::DirectionCandidate* candidate : order) {
    if (count-- <= 0) break;
    const bool is_chosen = results.has_chosen() && candidate == order.front();
    std::vector<std::string> row = {absl::StrCat(candidate->position()), absl::StrCat(candidate->layer()),
                                    Number(candidate->bypass()), Number(candidate->induce()),
                                    Number(candidate->kl())};
    if (is_affine)
      row.insert(row.end(), {Number(candidate->affine_bypass()), Number(candidate->affine_kl())});
    row.insert(row.end(), {Number(candidate->auroc()), Number(candidate->cosine()),
                           is_chosen ? "chosen" : (candidate->is_eligible() ? "" : "out of bounds")});
    table.AddRow(row);
  }
  return table.ToString();
}

// "96.7 to 100.0 %", of several outcomes.
template <typename RateOf>
std::string RateRange(const std::vector<const v1::DirectionOutcome*>& outcomes, const RateOf& rate_of) {
  double lowest = 1, highest = 0;
  for (const v1::DirectionOutcome* outcome : outcomes) {
    lowest = std::min(lowest, rate_of(*outcome).rate());
    highest = std::max(highest, rate_of(*outcome).rate());
  }
  if (lowest == highest) return absl::StrFormat("%.1f %%", 100 * lowest);
  return absl::StrFormat("%.1f to %.1f %%", 100 * lowest, 100 * highest);
}

template <typename NumberOf>
double MeanOf(const std::vector<const v1::DirectionOutcome*>& outcomes, const NumberOf& number_of) {
  double sum = 0;
  for (const v1::DirectionOutcome* outcome : outcomes) sum += number_of(*outcome);
  return sum / static_cast<double>(outcomes.size());
}

// Random directions in a line, of their means.
void AddControls(const v1::DirectionResults& results, v1::DirectionEdit edit, bool has_texts,
                 TextTable& table) {
  std::vector<const v1::DirectionOutcome*> controls;
  for (const v1::DirectionOutcome& outcome : results.outcomes()) {
    if (outcome.edit() == edit) controls.push_back(&outcome);
  }
  if (controls.empty()) return;
  using Outcome = v1::DirectionOutcome;
  std::vector<std::string> row = {
      absl::StrCat(controls.size(), " times: ", EditName(edit)),
      RateRange(controls, [](const Outcome& o) { return o.harmful(); }),
      RateRange(controls, [](const Outcome& o) { return o.harmless(); }),
      Number(MeanOf(controls, [](const Outcome& o) { return o.harmful_log_odds().mean(); })),
      Number(MeanOf(controls, [](const Outcome& o) { return o.harmless_kl().mean(); })),
      Number(MeanOf(controls, [](const Outcome& o) { return o.worst_decile_kl(); })),
      Number(MeanOf(controls, [](const Outcome& o) { return o.answer_cross_entropy().mean(); }))};
  if (has_texts) {
    row.push_back(Number(MeanOf(controls, [](const Outcome& o) { return o.text_cross_entropy().mean(); })));
  }
  table.AddRow(row);
}

std::string OutcomeTable(const v1::DirectionResults& results) {
  const bool has_texts = results.outcomes_size() > 0 && results.outcomes(0).has_text_cross_entropy();
  std::vector<std::string> names = {
      "model",        "harmful refused", "harmless refused", "log-odds, harmful",
      "KL, harmless", "worst tenth",     "nats/token"};
  if (has_texts) names.push_back("of texts");
  TextTable table(names);
  table.AlignLeft({0});
  for (const v1::DirectionOutcome& outcome : results.outcomes()) {
    if (outcome.edit() == v1::DIRECTION_EDIT_RANDOM_ABLATION ||
        outcome.edit() == v1::DIRECTION_EDIT_RANDOM_ADDITION) {
      continue;
    }
    std::vector<std::string> row = {
        EditName(outcome.edit()),
        RateText(outcome.harmful()),
        RateText(outcome.harmless()),
        EstimateText(outcome.harmful_log_odds()),
        EstimateText(outcome.harmless_kl()),
        Number(outcome.worst_decile_kl()),
        outcome.has_answer_cross_entropy() ? Number(outcome.answer_cross_entropy().mean()) : ""};
    if (has_texts) row.push_back(Number(outcome.text_cross_entropy().mean()));
    table.AddRow(row);
  }
  AddControls(results, v1::DIRECTION_EDIT_RANDOM_ABLATION, has_texts, table);
  AddControls(results, v1::DIRECTION_EDIT_RANDOM_ADDITION, has_texts, table);
  return table.ToString();
}

std::string SubspaceTable(const v1::DirectionResults& results) {
  TextTable table({"directions", "of the differences", "bypass", "KL", ""});
  for (const v1::DirectionSubspace& subspace : results.subspaces()) {
    table.AddRow({absl::StrCat(subspace.rank()), absl::StrFormat("%.1f %%", 100 * subspace.explained_share()),
                  Number(subspace.bypass()), Number(subspace.kl()), subspace.is_chosen() ? "chosen" : ""});
  }
  return table.ToString();
}

std::string CategoryTable(const v1::DirectionResults& results) {
  TextTable table({"category", "pairs", "cosine", "in the subspace"});
  table.AlignLeft({0});
  for (const v1::CategoryDirection& category : results.categories()) {
    table.AddRow({category.category(), absl::StrCat(category.pair_count()), Number(category.cosine()),
                  absl::StrFormat("%.0f %%", 100 * category.subspace_share())});
  }
  return table.ToString();
}

std::string Describe(const v1::DirectionResults& results, int show) {
  const bool chosen_on_the_same = results.validation_ids_size() > 0 &&
                                  std::find(results.training_ids().begin(), results.training_ids().end(),
                                            results.validation_ids(0)) != results.training_ids().end();
  std::string text = absl::StrCat(
      "Differences of means on ", results.training_ids_size(), " pairs, scored on ",
      results.validation_ids_size(), chosen_on_the_same ? " of them" : " others",
      ": refusal log-odds with a direction ablated (bypass; ", Number(results.harmful_log_odds()),
      " as it is) and added (induce; ", Number(results.harmless_log_odds()), "), ", results.run_count(),
      " runs\n", CandidateTable(results, show));
  if (results.rule() != v1::DIRECTION_RULE_PUBLISHED) {
    absl::StrAppend(&text, "none has KL at most ", results.most_kl(), ", induce at least ",
                    results.least_induce(), " and a layer below ",
                    absl::StrFormat("%.0f %%", 100 * results.layer_share()),
                    " of all; so they are judged by what setting them to the harmless mean does\n");
  }
  if (!results.has_chosen()) {
    return absl::StrCat(text, "no candidate is within the bounds so either\n");
  }
  absl::StrAppend(
      &text, "\nSeveral directions set to the harmless mean: what pairs differ by there and gradients read\n",
      SubspaceTable(results), "\nDirections of categories, beside the chosen one\n", CategoryTable(results));
  if (results.harmfulness_size() > 0) {
    const auto& probes = results.harmfulness();
    const auto best = std::max_element(probes.begin(), probes.end(),
                                       [](const auto& a, const auto& b) { return a.auroc() < b.auroc(); });
    absl::StrAppend(&text, "\nHarmfulness at the last instruction token: AUROC ", Number(best->auroc()),
                    " in layer ", best->layer(), ", cosine with the refusal direction ",
                    Number(best->cosine()), "\n");
  }
  if (results.outcomes_size() > 0) {
    absl::StrAppend(&text, "\nOn ", results.test_ids_size(), " other pairs\n", OutcomeTable(results));
  }
  if (results.has_published()) {
    const v1::PublishedAgreement& published = results.published();
    absl::StrAppend(&text, "\nRank correlation with the published scores of ", published.candidate_count(),
                    " candidates: bypass ", Number(published.bypass()), ", induce ",
                    Number(published.induce()), ", KL ", Number(published.kl()), "\n");
  }
  return text;
}

absl::Status WriteDirections(const std::string& path, const DirectionStudy& study) {
  std::vector<engine::TensorToWrite> tensors;
  for (const NamedTensor& tensor : study.tensors) {
    tensors.push_back({tensor.name, engine::NumberFormat::kFloat32, tensor.shape, tensor.values});
  }
  const v1::ModelIdentity& model = study.results.provenance().model();
  return engine::WriteSafetensors(path, tensors,
                                  {{"format", "abstract-directions-1"},
                                   {"model", model.name()},
                                   {"model_hash", model.model_hash()},
                                   {"site", "blocks.*.hook_resid_pre"}});
}

absl::Status RunCommand(Tool& tool, const DirectionFlags& flags) {
  std::vector<v1::PromptSource> sources;
  ABSTRACT_ASSIGN_OR_RETURN(DirectionOptions options, MakeOptions(flags, sources));
  ABSTRACT_ASSIGN_OR_RETURN(const auto run,
                            StudyRun::Begin(tool, flags.study, v1::EXPERIMENT_KIND_DIRECTION));
  for (v1::PromptSource& source : sources) run->AddSource(std::move(source));
  options.pairs = run->pairs();
  const v1::GetModelResponse& model = run->context().model;
  if (IsPublishedModel(model.identity().name(), model.layer_count())) {
    ABSTRACT_ASSIGN_OR_RETURN(options.published, LoadPublishedScores(DataPath(kPublishedScores)));
  }
  ABSTRACT_RETURN_IF_ERROR(run->OpenJournal(DirectionFingerprint(run->context(), options)));
  const std::filesystem::path results = ResultsPath(flags.study.output_dir, v1::EXPERIMENT_KIND_DIRECTION);
  const std::string path = (results.parent_path() / kDirectionsFile).string();
  if (run->is_finished() && std::filesystem::exists(path)) return run->ShowFinished();
  ABSTRACT_ASSIGN_OR_RETURN(DirectionStudy study, RunDirection(run->context(), options));
  ABSTRACT_RETURN_IF_ERROR(WriteDirections(path, study));
  study.results.set_directions_path(path);
  ABSTRACT_RETURN_IF_ERROR(run->Finish(study.results));
  if (tool.json) return PrintJson(tool, study.results);
  tool.Print(Describe(study.results, flags.show));
  return absl::OkStatus();
}

}  // namespace

void AddDirectionCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand(
      "direction",
      "Find the direction of refusal in the residual stream, ablate and add it, beside random ones");
  const auto flags = std::make_shared<DirectionFlags>();
  flags->study.AddTo(command);
  DirectionOptions& options = flags->options;
  command.AddOption("--validation-prompts", flags->validation_prompts,
                    "Pairs to choose the direction on; default: every fourth of --prompts is kept for that");
  command.AddOption("--test-prompts", flags->test_prompts,
                    "Pairs to test it on, none of them among the others; \"\": none");
  command.AddOption("--test-limit", flags->test_limit, "Test on the first so many; 0: all").NonNegative();
  command.AddOption("--texts", flags->texts,
                    "File of plain texts, one a line, whose cross-entropy is measured under each edit");
  command
      .AddOption("--most-kl", options.most_kl,
                 "A direction whose ablation moves harmless prompts by more, "
                 "in nats, is not chosen")
      .NonNegative();
  command.AddOption("--least-induce", options.least_induce,
                    "Nor one whose addition gives harmless prompts lower refusal log-odds");
  command.AddOption("--layer-share", options.layer_share, "Nor one above this share of the layers")
      .InRange(0.0, 1.0);
  command.AddOption("--most-directions", options.most_rank, "Largest subspace to be tried")
      .InRange(1, kMostSubspace);
  command.AddOption("--controls", options.control_count, "Random directions, ablated and added")
      .InRange(0, 100);
  command.AddOption("--max-new-tokens", options.max_new_tokens, "Length of answers").InRange(1, 4096);
  command.AddOption("--show", flags->show, "Candidates to print").NonNegative();
  flags->openings.AddTo(command);
  tool.SetActionOf(command, [&tool, flags] { return RunCommand(tool, *flags); });
}

}  // namespace mechinterp
