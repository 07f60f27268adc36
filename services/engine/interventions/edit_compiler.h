#ifndef SERVICES_ENGINE_INTERVENTIONS_EDIT_COMPILER_H_
#define SERVICES_ENGINE_INTERVENTIONS_EDIT_COMPILER_H_

#include "services/common/violations.h"
#include "services/engine/interventions/edit_values.h"
#include "services/engine/interventions/intervention.h"
#include "services/engine/interventions/source_runs.h"

namespace mechinterp::engine {

// Compiles what an intervention puts in place, one function for each kind of edit: its change,
// or the runs that its values will be read from. Violations by field path within the
// intervention ("scaling.factor"). Not thread-safe.
class EditCompiler {
 public:
  explicit EditCompiler(SourceRuns& runs) : runs_(runs) {}

  // Sets `change` of pending.edit, or its `fill` and `uses`.
  void Compile(const EditTarget& target, const Edit& edit, PendingEdit& pending,
               const FieldViolations& violations);

 private:
  void CompileReplacement(const EditTarget& target, const Replacement& edit, PendingEdit& pending,
                          const FieldViolations& violations);
  void CompileMean(const EditTarget& target, const MeanReplacement& edit, PendingEdit& pending,
                   const FieldViolations& violations);
  void CompilePathPatch(const EditTarget& target, const PathPatch& edit, PendingEdit& pending,
                        const FieldViolations& violations);
  void CompileResampling(const EditTarget& target, const Resampling& edit, PendingEdit& pending,
                         const FieldViolations& violations);

  SourceRuns& runs_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_INTERVENTIONS_EDIT_COMPILER_H_
