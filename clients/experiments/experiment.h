#ifndef CLIENTS_EXPERIMENTS_EXPERIMENT_H_
#define CLIENTS_EXPERIMENTS_EXPERIMENT_H_

#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/lib/journal.h"
#include "clients/lib/judge.h"
#include "clients/lib/model_client.h"
#include "clients/lib/monitor.h"
#include "clients/lib/parallel.h"
#include "clients/lib/prompts.h"
#include "mechinterp/v1/results.pb.h"
#include "services/common/status.h"

namespace mechinterp {

// What every experiment of the study works with. An experiment is a function of
// a context and its options that returns results; it prints nothing.
struct ExperimentContext {
  ModelClient* client = nullptr;
  // What the server serves; answers of another model end the experiment.
  v1::GetModelResponse model;
  // Where finished parts are kept. May be null.
  Journal* journal = nullptr;
  // May be null.
  ExperimentMonitor* monitor = nullptr;
  // Calls in flight at a time; the server batches them.
  int concurrency = 4;
  uint64_t seed = 0;
};

// FailedPrecondition unless the model takes chats, which the study needs.
absl::Status CheckModelFitsStudy(const v1::GetModelResponse& model);

// The pairs' id, category and prompt, with the class; nothing judged yet.
v1::JudgedResponse ResponseTo(const PromptPair& pair, v1::PromptClass prompt_class);

// Fills the response's text and judgement. Only the first `max_characters` of
// the text are kept (all when 0); all of it is judged.
void RecordJudgement(const RefusalJudge& judge, const std::string& text, size_t max_characters,
                     v1::JudgedResponse& response);

// Whether it is of that prompt, as ResponseTo begins one.
bool IsResponseTo(const v1::JudgedResponse& response, const PromptPair& pair, v1::PromptClass prompt_class);

// Both classes of every pair, harmful first.
struct StudyPrompt {
  const PromptPair* pair;
  v1::PromptClass prompt_class;

  std::string key() const { return pair->id + "/" + std::string(PromptClassName(prompt_class)); }
  v1::Prompt prompt() const { return UserPrompt(pair->prompt(prompt_class)); }
};
std::vector<StudyPrompt> BothClasses(const std::vector<PromptPair>& pairs);

// Model, seed, time and number of pairs; the command adds the rest.
v1::Provenance ProvenanceOf(const ExperimentContext& context, size_t pair_count);

// How the parts of a stage are read.
template <typename Part>
struct PartTraits {
  // How many model runs a part took.
  std::function<int(const Part&)> runs;
  // Whether part i is of the form that those who read it rely on.
  std::function<bool(int i, const Part&)> fits;
};

// Tells the monitor that the journal was set aside, and why.
void TellOfDistrust(const ExperimentContext& context);

// Computes part i under keys[i] (in the journal; unique in all the experiment), several at a time,
// skipping those that the journal has. A journal with a part that does not fit is a damaged one, of which
// nothing more is used. Returned in the order of the keys.
// Errors: DataLoss for a computed part that does not fit.
template <typename Part>
absl::StatusOr<std::vector<Part>> RunParts(const ExperimentContext& context, std::string_view stage,
                                           const std::vector<std::string>& keys,
                                           const std::function<absl::StatusOr<Part>(int)>& compute,
                                           const PartTraits<Part>& traits) {
  std::vector<Part> parts(keys.size());
  std::vector<int> missing, all(keys.size());
  std::iota(all.begin(), all.end(), 0);
  std::string misfit;
  for (const int i : all) {
    const bool found = context.journal != nullptr && context.journal->Find(keys[i], &parts[i]);
    if (!found) missing.push_back(i);
    if (found && !traits.fits(i, parts[i])) misfit = keys[i];
  }
  if (!misfit.empty()) {
    if (absl::Status status = context.journal->Distrust(keys, "no such part is made: " + misfit);
        !status.ok())
      return status;
    TellOfDistrust(context);
    missing = all;
  }
  ExperimentMonitor ignored;
  ExperimentMonitor& monitor = context.monitor != nullptr ? *context.monitor : ignored;
  monitor.Begin(stage, static_cast<int>(keys.size()), static_cast<int>(keys.size() - missing.size()));
  const auto run_one = [&](int m) -> absl::Status {
    const size_t i = static_cast<size_t>(missing[static_cast<size_t>(m)]);
    absl::StatusOr<Part> part = compute(static_cast<int>(i));
    // Such a fault is of this part, whose key names the prompt; others are of server or line.
    if (absl::IsInvalidArgument(part.status())) return WithContext(part.status(), keys[i]);
    if (!part.ok()) return part.status();
    if (!traits.fits(static_cast<int>(i), *part)) {
      return absl::DataLossError("the server's answer is not of the form that was asked for: " + keys[i]);
    }
    parts[i] = *std::move(part);
    if (context.journal != nullptr) {
      if (absl::Status status = context.journal->Record(keys[i], parts[i]); !status.ok()) return status;
    }
    monitor.Advance(traits.runs(parts[i]));
    return absl::OkStatus();
  };
  const absl::Status status = ParallelFor(static_cast<int>(missing.size()), context.concurrency, run_one);
  monitor.End();
  if (!status.ok()) return status;
  return parts;
}

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_EXPERIMENT_H_
