#include "clients/commands/study.h"

#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/lib/files.h"
#include "clients/lib/prompt_import.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/data_path.h"
#include "services/common/experiments.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/common/version.h"
#include "services/engine/checkpoint/content_hash.h"

namespace mechinterp {

namespace {

// Those that change nothing of the results.
const std::set<std::string, std::less<>> kOptionsOfTheRunAlone = {"concurrency", "help", "output-dir",
                                                                  "restart",     "show", "skip-finished"};

}  // namespace

void StudyFlags::AddTo(Command command) {
  command.AddOption("--prompts", prompts, "Prompt pairs");
  command.AddOption(
      "--harmful", harmful,
      "Harmful prompts in place of pairs, as AdvBench, HarmBench, JailbreakBench, StrongREJECT, XSTest "
      "or refusal_direction publish them (.csv, .json), or one a line; with --harmless");
  command.AddOption(
      "--harmless", harmless,
      "Harmless prompts likewise, of Alpaca for example; the first of each file make a pair, and so on");
  command.AddOption("--output-dir", output_dir, "Folder to write results/ into");
  command.AddOption("--limit", limit, "Only the first pairs; 0: all").NonNegative();
  command.AddOption("--seed", seed, "Seed of all random choices");
  command.AddOption("--concurrency", concurrency, "Concurrent calls; the server batches them").InRange(1, 64);
  command.AddFlag("--restart", restart, "Start over instead of resuming an interrupted run");
  command.AddFlag("--skip-finished", skip_finished,
                  "Do nothing where the results are there already, of the same arguments on the same model");
}

void OpeningFlags::AddTo(Command command) {
  command.AddOption("--refusal-phrases", refusal_phrases,
                    "File of the phrases that mark a refusal, and of openings of refusals and answers");
  command
      .AddOption("--refusal-opening", refusal,
                 "Opening of refusals, whose first token enters the metric; may be repeated")
      .OneValueEachTime();
  command
      .AddOption("--compliance-opening", compliance,
                 "Opening of compliant answers, likewise; may be repeated")
      .OneValueEachTime();
}

absl::StatusOr<Openings> OpeningFlags::Load() const {
  if (!refusal.empty() && !compliance.empty()) return Openings{refusal, compliance};
  ABSTRACT_ASSIGN_OR_RETURN(Openings openings, LoadOpenings(DataPath(refusal_phrases)));
  if (!refusal.empty()) openings.refusal = refusal;
  if (!compliance.empty()) openings.compliance = compliance;
  return openings;
}

absl::StatusOr<Openings> OpeningFlags::LoadOrDefault() const {
  absl::StatusOr<Openings> openings = Load();
  const bool is_named = refusal_phrases != OpeningFlags().refusal_phrases;
  if (absl::IsNotFound(openings.status()) && !is_named) return Openings();
  return openings;
}

StudyRun::StudyRun(Tool& tool, const StudyFlags& flags, v1::ExperimentKind experiment)
    : tool_(tool),
      flags_(flags),
      experiment_(experiment),
      command_(InfoOf(experiment).name),
      results_path_(ResultsPath(flags.output_dir, experiment)),
      journal_path_(JournalPath(flags.output_dir, experiment)),
      finished_path_(FinishedPath(flags.output_dir, experiment)) {}

absl::StatusOr<std::unique_ptr<StudyRun>> StudyRun::Begin(Tool& tool, const StudyFlags& flags,
                                                          v1::ExperimentKind experiment) {
  std::unique_ptr<StudyRun> run(new StudyRun(tool, flags, experiment));
  ABSTRACT_RETURN_IF_ERROR(run->LoadPairs());
  ABSTRACT_RETURN_IF_ERROR(run->Connect());
  return run;
}

absl::StatusOr<std::unique_ptr<StudyRun>> StudyRun::BeginWithoutPairs(Tool& tool, const StudyFlags& flags,
                                                                      v1::ExperimentKind experiment) {
  std::unique_ptr<StudyRun> run(new StudyRun(tool, flags, experiment));
  ABSTRACT_RETURN_IF_ERROR(run->Connect());
  return run;
}

absl::Status StudyRun::LoadPairs() {
  if (flags_.harmful.empty() != flags_.harmless.empty()) {
    return absl::InvalidArgumentError("--harmful and --harmless go together");
  }
  if (flags_.harmful.empty()) {
    const std::string path = DataPath(flags_.prompts);
    ABSTRACT_ASSIGN_OR_RETURN(pairs_, LoadPromptPairs(path, flags_.limit));
    ABSTRACT_ASSIGN_OR_RETURN(v1::PromptSource source, DescribePairs(path, pairs_));
    source.set_path(flags_.prompts);
    AddSource(std::move(source));
    return absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(PromptList harmful,
                            LoadPromptList(DataPath(flags_.harmful), v1::PROMPT_CLASS_HARMFUL, flags_.limit));
  ABSTRACT_ASSIGN_OR_RETURN(PromptList harmless, LoadPromptList(DataPath(flags_.harmless),
                                                                v1::PROMPT_CLASS_HARMLESS, flags_.limit));
  pairs_ = PairUp(harmful, harmless);
  harmful.source.set_path(flags_.harmful);
  harmless.source.set_path(flags_.harmless);
  for (const PromptList* list : {&harmful, &harmless}) AddSource(list->source);
  return absl::OkStatus();
}

absl::Status StudyRun::Connect() {
  ABSTRACT_RETURN_IF_ERROR(CheckWritable(results_path_));
  ABSTRACT_ASSIGN_OR_RETURN(session_, Session::Open(tool_, command_));
  context_.client = &session_->client();
  context_.monitor = &session_->monitor();
  context_.concurrency = flags_.concurrency;
  context_.seed = flags_.seed;
  ABSTRACT_ASSIGN_OR_RETURN(context_.model, context_.client->GetModel());
  tool_.Note(absl::StrCat(command_, ": ", Describe()));
  return absl::OkStatus();
}

absl::StatusOr<std::string> StudyRun::FinishedMark() const {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string results, ReadTextFile(results_path_));
  engine::Sha256 hash;
  hash.Add(results);
  return absl::StrCat("run ", fingerprint_hash_, "\nresults ", hash.Hex(), "\n");
}

absl::Status StudyRun::OpenJournal(const Fingerprint& fingerprint) {
  engine::Sha256 hash;
  for (const auto& [name, value] : fingerprint)
    hash.Add(absl::StrCat(name.size(), " ", name, value.size(), " ", value));
  // What results depend on beside their parts: how they are judged and summed up.
  for (const auto& [name, value] : tool_.values()) {
    if (kOptionsOfTheRunAlone.count(name) == 0)
      hash.Add(absl::StrCat(name.size(), " ", name, value.size(), " ", value));
  }
  fingerprint_hash_ = hash.Hex();
  if (flags_.skip_finished && !flags_.restart) {
    const absl::StatusOr<std::string> mark = ReadTextFile(finished_path_), now = FinishedMark();
    is_finished_ = mark.ok() && now.ok() && *mark == *now;
  }
  if (is_finished_) {
    tool_.Note(absl::StrCat(command_, ": finished already, ", results_path_));
    return absl::OkStatus();
  }
  ABSTRACT_ASSIGN_OR_RETURN(journal_, Journal::Open(journal_path_, fingerprint, flags_.restart));
  if (journal_->resumed_part_count() > 0) {
    tool_.Note(absl::StrCat("resuming after ", journal_->resumed_part_count(),
                            " finished parts of an interrupted run; --restart starts over"));
  } else if (!journal_->discard_reason().empty()) {
    tool_.Note(absl::StrCat("the journal of an interrupted run was set aside as ", journal_->set_aside_path(),
                            ": ", journal_->discard_reason()));
  }
  context_.journal = journal_.get();
  return absl::OkStatus();
}

absl::Status StudyRun::ShowFinished() const {
  if (!tool_.json) return absl::OkStatus();
  v1::Study study;
  google::protobuf::Message& results = MutableResultsOf(study, experiment_);
  ABSTRACT_RETURN_IF_ERROR(ReadResults(results_path_, &results));
  return PrintJson(tool_, results);
}

void StudyRun::CompleteProvenance(v1::Provenance& provenance) const {
  provenance.set_client_version(kVersion);
  provenance.set_prompts_path(flags_.harmful.empty() ? flags_.prompts : flags_.harmful);
  provenance.mutable_prompt_sources()->Assign(sources_.begin(), sources_.end());
  provenance.mutable_arguments()->Assign(tool_.arguments.begin(), tool_.arguments.end());
  *provenance.mutable_elapsed() = google::protobuf::util::TimeUtil::MillisecondsToDuration(
      absl::ToInt64Milliseconds(absl::Now() - begin_));
}

absl::Status StudyRun::Write(const google::protobuf::Message& results) {
  ABSTRACT_RETURN_IF_ERROR(WriteResults(results_path_, results));
  if (!fingerprint_hash_.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string mark, FinishedMark());
    ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(finished_path_, mark));
  }
  if (journal_ != nullptr) ABSTRACT_RETURN_IF_ERROR(journal_->Remove());
  tool_.Note(absl::StrCat("results: ", results_path_));
  return absl::OkStatus();
}

std::string StudyRun::Describe() const {
  const v1::ModelIdentity& model = context_.model.identity();
  const std::string served = absl::StrCat(model.name(), " (", model.model_hash().substr(0, 12), ")");
  if (pairs_.empty()) return served;
  return absl::StrCat(
      served, ", ", pairs_.size(), " prompt pairs of ",
      flags_.harmful.empty() ? flags_.prompts : absl::StrCat(flags_.harmful, " and ", flags_.harmless));
}

std::string RateText(const v1::Rate& rate) {
  return absl::StrFormat("%5.1f %% [%.1f, %.1f]", 100 * rate.rate(), 100 * rate.lower(), 100 * rate.upper());
}

std::string EstimateText(const v1::Estimate& estimate) {
  return absl::StrFormat("%6.3f [%.3f, %.3f]", estimate.mean(), estimate.lower(), estimate.upper());
}

}  // namespace mechinterp
