#ifndef SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_
#define SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_

#include <memory>
#include <vector>

#include "services/common/violations.h"
#include "services/engine/interventions/edit_values.h"
#include "services/engine/interventions/hook_plan.h"
#include "services/engine/interventions/intervention.h"
#include "services/engine/interventions/source_runs.h"

namespace mechinterp::engine {

// Which activations of a prompt to record.
struct CaptureRequest {
  std::vector<HookSite> sites;
  PositionSelector positions;
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
// Add checks everything that can be wrong. Movable. Not thread-safe.
class PlanCompiler {
 public:
  explicit PlanCompiler(const ModelConfig& config) : config_(config) {}

  // Field paths: "interventions[i]..." for edits, "filter..." for captures.
  void Add(const TokenizedPrompt& prompt, const InterventionSet& interventions, const CaptureRequest& capture,
           const FieldViolations& violations);

  const std::vector<SourceRunRequest>& source_runs() const { return source_runs_.requests(); }

  // What is known of the plans before their values are: where each begins to change its
  // prompt's run, the bytes that all of them take, here and finished, and those that
  // making an edit's values from runs takes for the while.
  std::vector<EntryPoint> EntryPoints() const;
  int64_t PlanBytes() const;
  int64_t LargestSumBytes() const;
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

  PendingEdit CompileIntervention(const TokenizedPrompt& prompt, const Intervention& intervention,
                                  const FieldViolations& violations);
  int64_t FilledCount(const PendingEdit& edit, int prompt_length) const;

  ModelConfig config_;
  std::vector<PendingPlan> plans_;
  SourceRuns source_runs_{config_};
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_PLAN_COMPILER_H_
