#ifndef SERVICES_ENGINE_INTERVENTIONS_SOURCE_RUNS_H_
#define SERVICES_ENGINE_INTERVENTIONS_SOURCE_RUNS_H_

#include <set>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/interventions/edit_values.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// A clean run that some edit reads: which prompt, which sites and positions.
struct SourceRunRequest {
  TokenizedPrompt prompt;
  std::set<HookSite> sites;
  std::set<int> positions;
};

// What an intervention touches, resolved.
struct EditTarget {
  const TokenizedPrompt& prompt;
  const Selector& selector;
  HookSite site;
  std::vector<int> positions;  // as the selector says, whatever the scope
  PartSize part;
  bool over_keys = false;
};

// Whether a source could not be read, which has been reported.
bool IsUnread(const ActivationSource& source);
// The prompt that a source's run is of; null for a tensor. Not for unread ones.
const TokenizedPrompt* PromptOf(const ActivationSource& source);

// Collects the runs of other prompts that edits read, each prompt once. Violations are added
// by field path within the source. Not thread-safe.
class SourceRuns {
 public:
  explicit SourceRuns(const ModelConfig& config) : config_(config) {}

  const std::vector<SourceRunRequest>& requests() const { return requests_; }

  // Records that `source` is read at `positions` (-1: nowhere) of its run.
  SourceUse Use(const EditTarget& target, const ActivationSource& source, std::vector<int> positions,
                const FieldViolations& violations);
  // The same at the positions that correspond to the target's.
  SourceUse UseAligned(const EditTarget& target, const ActivationSource& source, PositionAlignment alignment,
                       const FieldViolations& violations);

  // Whether a path's sender writes to the residual stream, where the target's site comes after it and
  // reads the stream.
  bool CheckSender(const EditTarget& target, const PathPatch& edit, const FieldViolations& violations) const;

 private:
  ModelConfig config_;
  std::vector<SourceRunRequest> requests_;
};

// Whether a site is one of the model's; its layer is reported if not.
bool CheckSite(const HookSite& site, const ModelConfig& config, const FieldViolations& violations);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_SOURCE_RUNS_H_
