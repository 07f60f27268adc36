#ifndef SERVICES_ANALYSIS_DASHBOARD_SERVER_H_
#define SERVICES_ANALYSIS_DASHBOARD_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/analysis/run_store.h"
#include "services/common/http_server.h"

namespace mechinterp {

// Whether the token may see what there is, sent from this host. Errors: Unauthenticated,
// ResourceExhausted after too many failures.
using TokenCheck = std::function<absl::Status(const std::string& token, const std::string& host)>;

struct DashboardOptions {
  TokenCheck check;                        // none: everybody may look
  std::vector<std::string> allowed_hosts;  // as HttpServerOptions
};

// Serves the dashboards to browsers:
//   /          to the latest run's dashboard, or to /runs when there is none
//   /runs      the list of runs, in pages
//   /runs/ID   a run's dashboard; compressed, once, for browsers that take gzip
//   /runs/ID/EXPERIMENT.json   an experiment's results
//   /login     takes a token, where one is needed
//   /healthz   "ok", to everybody
// `listen_address` like "127.0.0.1:8080"; port 0 lets the system choose. `store`
// must outlive the server. Errors as HttpServer's.
absl::StatusOr<std::unique_ptr<HttpServer>> StartDashboardServer(const std::string& listen_address,
                                                                 RunStore* store,
                                                                 DashboardOptions options = {});

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_DASHBOARD_SERVER_H_
