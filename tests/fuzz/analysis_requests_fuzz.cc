// Calls of the analysis service, over a store in memory; see service_calls.h.

#include "services/analysis/analysis_service.h"
#include "services/analysis/run_store.h"
#include "services/analysis/study.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/service_calls.h"

ABSTRACT_FUZZ_TARGET(analysis_requests) {
  using namespace mechinterp;
  const auto store = RunStore::Open(":memory:");
  fuzz::RequireOk(store.status(), "a store");
  AnalysisServiceImpl service(store->get());
  const ServiceMethods methods = service.Methods();
  fuzz::RunCalls(methods.Complete(), input, [&](const auto& request, const fuzz::Answer& answer) {
    if (answer.method != "ImportRun" || !answer.status.ok()) return;
    // What was imported is there, and is right.
    v1::ImportRunResponse response;
    fuzz::Require(response.ParseFromString(answer.messages.at(0)), "an answer is a message");
    const auto run = (*store)->Get(response.run_id());
    fuzz::RequireOk(run.status(), "a run that was imported is there");
    Violations violations;
    CheckStudy(run->study(), "study", violations);
    fuzz::Require(violations.empty() && !IsEmpty(run->study()), "a run that was imported is right");
  });
}
