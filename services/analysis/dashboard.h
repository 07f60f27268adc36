#ifndef SERVICES_ANALYSIS_DASHBOARD_H_
#define SERVICES_ANALYSIS_DASHBOARD_H_

#include <string>

#include "absl/status/statusor.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// One HTML file that shows a study and asks the network for nothing: Plotly, the
// style and the data lie in it (1.6 MB and more). Views whose results are
// missing say which command makes them. Of responses only the openings are put
// in: they show whether the model refused, and an ablated model's answer to a
// harmful request should not travel further than it must.
// Thread-safe. InvalidArgument for results that cannot be written as JSON;
// FailedPrecondition for those of which a page would hold more than 32 MiB.
absl::StatusOr<std::string> RenderDashboard(v1::GetRunResponse run);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_DASHBOARD_H_
