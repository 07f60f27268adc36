#ifndef SERVICES_MODEL_ENGINE_PLAN_COMPILER_H_
#define SERVICES_MODEL_ENGINE_PLAN_COMPILER_H_

#include <memory>
#include <set>
#include <vector>

#include "services/model/engine/edit_values.h"
#include "services/model/engine/hook_plan.h"
#include "services/model/engine/intervention.h"
#include "services/model/engine/problems.h"

namespace mechinterp::engine {

// Which activations of a prompt to record.
struct CaptureRequest {
  std::vector<HookSite> sites;
  PositionSelector positions;
};

// A clean run that some edit reads: which prompt, which sites and positions.
struct SourceRunRequest {
  TokenizedPrompt prompt;
  std::set<HookSite> sites;
  std::set<int> positions;
};

// Compiles interventions into hook plans in two steps, because edits may read
// other prompts' runs:
//
//   PlanCompiler compiler(config);
//   compiler.Add(prompt, interventions, capture, problems);   // any number
//   if (!problems.empty()) ...                                // nothing ran yet
//   runs = <run compiler.source_runs()>;                      // distinct prompts, once each
//   plans = compiler.Finish(runs);                            // cannot fail
//
// Add checks everything that can be wrong. Not thread-safe.
class PlanCompiler {
 public:
  explicit PlanCompiler(const ModelConfig& config) : config_(config) {}

  // Field paths: "interventions[i]..." for edits, "filter..." for captures.
  void Add(const TokenizedPrompt& prompt, const InterventionSet& interventions, const CaptureRequest& capture,
           const Problems& problems);

  const std::vector<SourceRunRequest>& source_runs() const { return source_runs_; }

  // What is known of the plans before their values are: where each begins to change
  // its prompt's run, and the bytes that the values of all of them take at most.
  std::vector<EntryPoint> EntryPoints() const;
  int64_t ValueBytes() const;
  // Longest prompt in whose run the point is edited, recorded or read; 0: none.
  int LongestRunWith(HookPoint point) const;

  // One plan for each Add, in order. `runs` answer source_runs(), in order.
  std::vector<std::shared_ptr<const HookPlan>> Finish(
      const std::vector<std::shared_ptr<const RecordedRun>>& runs) const;

 private:
  struct PendingPlan {
    HookPlan plan;  // edits come in Finish
    std::vector<PendingEdit> edits;
  };
  struct Target;

  PendingEdit CompileIntervention(const TokenizedPrompt& prompt, const Intervention& intervention,
                                  const Problems& problems);
  void CompileEdit(const Target& target, const Intervention& intervention, PendingEdit& pending,
                   const Problems& problems);
  // Records that `source` is read at `positions` (-1: nowhere) of its run.
  SourceUse UseSource(const Target& target, const ActivationSource& source, std::vector<int> positions,
                      const Problems& problems);
  SourceUse UseAligned(const Target& target, const ActivationSource& source, PositionAlignment alignment,
                       const Problems& problems);
  void CompileReplacement(const Target& target, const Replacement& edit, PendingEdit& pending,
                          const Problems& problems);
  void CompileMean(const Target& target, const MeanReplacement& edit, PendingEdit& pending,
                   const Problems& problems);
  void CompileResampling(const Target& target, const Resampling& edit, PendingEdit& pending,
                         const Problems& problems);

  const ModelConfig config_;
  std::vector<PendingPlan> plans_;
  std::vector<SourceRunRequest> source_runs_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_PLAN_COMPILER_H_
