#ifndef CLIENTS_LIB_RESULTS_IO_H_
#define CLIENTS_LIB_RESULTS_IO_H_

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// The study's files: outputs/results/*.json, each one protobuf message in
// readable JSON. Thread-safe; errors name the path.

// OUTPUT_DIR/results.
std::string ResultsFolder(const std::string& output_dir);
// OUTPUT_DIR/results/02_patching_results.json.
std::string ResultsPath(const std::string& output_dir, v1::ExperimentKind experiment);
// OUTPUT_DIR/results/.02_patching.journal.jsonl.
std::string JournalPath(const std::string& output_dir, v1::ExperimentKind experiment);

// OUTPUT_DIR/results/.02_patching.finished: of which run the results there are.
std::string FinishedPath(const std::string& output_dir, v1::ExperimentKind experiment);

// Replaces the file at once or not at all.
absl::Status WriteResults(const std::string& path, const google::protobuf::Message& results);

// NotFound; InvalidArgument when it does not hold such a message.
absl::Status ReadResults(const std::string& path, google::protobuf::Message* results);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_RESULTS_IO_H_
