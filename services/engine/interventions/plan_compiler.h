#ifndef SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_
#define SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_

#include <memory>
#include <set>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/interventions/edit_values.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/interventions/intervention.h"

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
//   compiler.Add(prompt, interventions, capture, violations);   // any number
//   if (!violations.empty()) ...                                // nothing ran yet
//   runs = <run compiler.source_runs()>;                      // distinct prompts, once each
//   plans = compiler.Finish(runs);                            // cannot fail
//
// Add checks everything that can be wrong. Not thread-safe.
class PlanCompiler {
 public:
  explicit PlanCompiler(const ModelConfig& config) : config_(config) {}

  // Field paths: "interventions[i]..." for edits, "filter..." for captures.
  void Add(const TokenizedPrompt& prompt, const InterventionSet& interventions, const CaptureRequest& capture,
           const FieldViolations& violations);

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
                                  const FieldViolations& violations);
  void CompileEdit(const Target& target, const Intervention& intervention, PendingEdit& pending,
                   const FieldViolations& violations);
  // Records that `source` is read at `positions` (-1: nowhere) of its run.
  SourceUse UseSource(const Target& target, const ActivationSource& source, std::vector<int> positions,
                      const FieldViolations& violations);
  SourceUse UseAligned(const Target& target, const ActivationSource& source, PositionAlignment alignment,
                       const FieldViolations& violations);
  void CompileReplacement(const Target& target, const Replacement& edit, PendingEdit& pending,
                          const FieldViolations& violations);
  void CompileMean(const Target& target, const MeanReplacement& edit, PendingEdit& pending,
                   const FieldViolations& violations);
  void CompileResampling(const Target& target, const Resampling& edit, PendingEdit& pending,
                         const FieldViolations& violations);

  const ModelConfig config_;
  std::vector<PendingPlan> plans_;
  std::vector<SourceRunRequest> source_runs_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_
