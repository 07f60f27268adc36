#ifndef SERVICES_ANALYSIS_DASHBOARD_SERVER_H_
#define SERVICES_ANALYSIS_DASHBOARD_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/analysis/run_store.h"
#include "services/common/http_server.h"

namespace mechinterp {

// Serves the dashboards to browsers:
//   /          to the latest run's dashboard, or to /runs when there is none
//   /runs      the list of runs, in pages
//   /runs/ID   a run's dashboard; compressed, once, for browsers that take gzip
//   /healthz   "ok"
// `listen_address` like "127.0.0.1:8080"; port 0 lets the system choose. `store`
// must outlive the server. Errors as HttpServer's.
absl::StatusOr<std::unique_ptr<HttpServer>> StartDashboardServer(const std::string& listen_address,
                                                                 RunStore* store);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_DASHBOARD_SERVER_H_
