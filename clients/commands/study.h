#ifndef CLIENTS_COMMANDS_STUDY_H_
#define CLIENTS_COMMANDS_STUDY_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"
#include "clients/lib/results_io.h"
#include "services/common/command_line.h"

namespace mechinterp {

// Options of every experiment.
struct StudyFlags {
  std::string prompts = "data/prompts.json";
  std::string harmful, harmless;  // instead of pairs: sets of prompts that others publish
  std::string output_dir = "outputs";
  int limit = 0;
  uint64_t seed = 0;
  int concurrency = 4;
  bool restart = false;
  bool skip_finished = false;

  void AddTo(Command command);
};

// How the openings of refusals and of answers are given.
struct OpeningFlags {
  std::string refusal_phrases = "data/refusal_phrases.json";
  std::vector<std::string> refusal;
  std::vector<std::string> compliance;

  void AddTo(Command command);
  // Those of the flags, otherwise of the phrase file.
  absl::StatusOr<Openings> Load() const;
  // The same, or the default ones where no phrase file was named and the usual one is not there:
  // unlike an experiment, a single command works outside the repository's folder too.
  absl::StatusOr<Openings> LoadOrDefault() const;
};

// One experiment from its first check to its results file. Not thread-safe.
class StudyRun {
 public:
  // Loads the prompts, makes sure that the results file can be written before
  // anything expensive happens, connects, and asks what is served.
  static absl::StatusOr<std::unique_ptr<StudyRun>> Begin(Tool& tool, const StudyFlags& flags,
                                                         v1::ExperimentKind experiment);
  // The same without prompt pairs; flags.prompts must be empty.
  static absl::StatusOr<std::unique_ptr<StudyRun>> BeginWithoutPairs(Tool& tool, const StudyFlags& flags,
                                                                     v1::ExperimentKind experiment);

  // More files that prompts came from, for the results' provenance.
  void AddSource(v1::PromptSource source) { sources_.push_back(std::move(source)); }

  // Takes over what a former run of the same fingerprint had finished.
  absl::Status OpenJournal(const Fingerprint& fingerprint);
  // With --skip-finished, once the journal is open: whether the results are there already, unchanged, of
  // a run of the same fingerprint.
  bool is_finished() const { return is_finished_; }
  // Prints the results that are there, with --json.
  absl::Status ShowFinished() const;

  // Completes the results' provenance, writes them and drops the journal.
  template <typename Results>
  absl::Status Finish(Results& results) {
    CompleteProvenance(*results.mutable_provenance());
    return Write(results);
  }

  const ExperimentContext& context() const { return context_; }
  const std::vector<PromptPair>& pairs() const { return pairs_; }
  Session& session() const { return *session_; }
  // "llama, 15 pairs"
  std::string Describe() const;

 private:
  StudyRun(Tool& tool, const StudyFlags& flags, v1::ExperimentKind experiment);
  absl::Status LoadPairs();
  absl::Status Connect();
  void CompleteProvenance(v1::Provenance& provenance) const;
  absl::Status Write(const google::protobuf::Message& results);
  // What the file beside the results says of them, as they are now.
  absl::StatusOr<std::string> FinishedMark() const;

  Tool& tool_;
  const StudyFlags flags_;
  const v1::ExperimentKind experiment_;
  const std::string command_;
  const std::string results_path_;
  const std::string journal_path_;
  const std::string finished_path_;
  std::string fingerprint_hash_;
  bool is_finished_ = false;
  const absl::Time begin_ = absl::Now();
  std::vector<PromptPair> pairs_;
  std::vector<v1::PromptSource> sources_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Journal> journal_;
  ExperimentContext context_;
};

// "95.0 % [79.6, 99.1]"
std::string RateText(const v1::Rate& rate);
// "0.512 [0.430, 0.601]"
std::string EstimateText(const v1::Estimate& estimate);

}  // namespace mechinterp

#endif  // CLIENTS_COMMANDS_STUDY_H_
