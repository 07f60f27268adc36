#ifndef SERVICES_ANALYSIS_ASSETS_H_
#define SERVICES_ANALYSIS_ASSETS_H_

#include "absl/strings/string_view.h"

namespace mechinterp {

// The files of web/ and Plotly's bundle, embedded in the program by the build
// (assets.cc.in). They live as long as the program.
absl::string_view DashboardTemplate();
absl::string_view DashboardStyle();
absl::string_view DashboardScript();
absl::string_view PlotlyScript();

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_ASSETS_H_
