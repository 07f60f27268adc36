#ifndef SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_
#define SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_

#include <string>
#include <utility>

#include "services/analysis/run_store.h"
#include "services/rpc/service_methods.h"

namespace mechinterp {

// AnalysisService over a RunStore. Handlers check the request, ask the store and
// the pure functions beside it. Thread-safe.
class AnalysisServiceImpl final {
 public:
  // `store` must outlive the service. `http_address`: as in ImportRunResponse.
  explicit AnalysisServiceImpl(RunStore* store, std::string http_address = "")
      : store_(*store), http_address_(std::move(http_address)) {}

  // For an RpcServer. The service must outlive it.
  ServiceMethods Methods();

 private:
  RunStore& store_;
  const std::string http_address_;
};

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_
