#ifndef CLIENTS_REPORT_REPORT_H_
#define CLIENTS_REPORT_REPORT_H_

#include "clients/report/document.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// What a study found: the model and the prompts, each hypothesis with its verdict and numbers, the main
// table of every experiment that was run, the method's limits, and how to make it all again. Pure: the
// same results give the same document.
Document BuildReport(const v1::Study& study);

}  // namespace mechinterp

#endif  // CLIENTS_REPORT_REPORT_H_
