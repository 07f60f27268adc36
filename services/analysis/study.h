#ifndef SERVICES_ANALYSIS_STUDY_H_
#define SERVICES_ANALYSIS_STUDY_H_

#include <string>

#include "absl/status/statusor.h"
#include "mechinterp/v1/analysis_service.pb.h"
#include "services/common/status.h"

namespace mechinterp {

// What the service does with a study's results before showing them. All
// functions are pure but ReadStudy, and thread-safe.

// Adds what is inconsistent in `study` under the path `field`: components
// outside the model, shares outside [0, 1], more layers, heads or neurons than any
// model has, nodes and edges of a circuit that are none.
void CheckStudy(const v1::Study& study, const std::string& field, Violations& violations);

// Reads the results files of a folder and checks them; those that do not exist are
// left unset. Errors: NotFound for the folder; InvalidArgument, naming the file, for
// content that is no such result.
absl::StatusOr<v1::Study> ReadStudy(const std::string& folder);

bool IsEmpty(const v1::Study& study);

// The model's name from the first part that has it.
std::string ModelName(const v1::Study& study);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_STUDY_H_
