#ifndef SERVICES_COMMON_EXPERIMENTS_H_
#define SERVICES_COMMON_EXPERIMENTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/message.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// The experiments that a study is made of, as v1::Study lists them. Thread-safe.

struct ExperimentInfo {
  v1::ExperimentKind kind;
  std::string name;       // "baseline": the command and the field of v1::Study
  std::string file_name;  // "01_baseline_results.json"
};

// In rising order of their kinds.
const std::vector<ExperimentInfo>& Experiments();
// Whether one of them has this number; a database may know more.
bool IsExperiment(int number);
// `kind` must be one of them, here and below.
const ExperimentInfo& InfoOf(v1::ExperimentKind kind);

// Nullptr when the study has no results of the experiment.
const google::protobuf::Message* ResultsOf(const v1::Study& study, v1::ExperimentKind kind);
// Adds empty ones when it has none.
google::protobuf::Message& MutableResultsOf(v1::Study& study, v1::ExperimentKind kind);
void ClearResultsOf(v1::Study& study, v1::ExperimentKind kind);

// Of the results message of any experiment.
const v1::Provenance& ProvenanceOf(const google::protobuf::Message& results);

// Reads the results files that lie in `folder`; no results for files that do not exist.
// InvalidArgument, naming the file, for content that is no such result.
absl::StatusOr<v1::Study> ReadResultsFiles(const std::string& folder);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_EXPERIMENTS_H_
