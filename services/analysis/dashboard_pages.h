#ifndef SERVICES_ANALYSIS_DASHBOARD_PAGES_H_
#define SERVICES_ANALYSIS_DASHBOARD_PAGES_H_

#include <string>
#include <vector>

#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// The small pages around the dashboards, in HTML; what they are given is plain text. Pure.

// `older`: where the list goes on; empty at its end.
std::string ListPage(const std::vector<v1::RunDescription>& runs, const std::string& older);
std::string ErrorPage(const std::string& problem);
// Asks for a token; `problem`: why the last one would not do.
std::string LoginPage(const std::string& problem);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_DASHBOARD_PAGES_H_
