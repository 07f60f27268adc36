#ifndef CLIENTS_LIB_RESULTS_IO_H_
#define CLIENTS_LIB_RESULTS_IO_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace mechinterp {

// The study's files: outputs/results/*.json, each one protobuf message in
// readable JSON. Thread-safe; errors name the path.

inline constexpr std::string_view kBaselineFile = "01_baseline_results.json";
inline constexpr std::string_view kPatchingFile = "02_patching_results.json";
inline constexpr std::string_view kAblationFile = "03_ablation_results.json";
inline constexpr std::string_view kCompareFile = "04_compare_results.json";

// OUTPUT_DIR/results/FILE_NAME.
std::string ResultsPath(const std::string& output_dir, std::string_view file_name);
// OUTPUT_DIR/results/.02_patching.journal.jsonl for 02_patching_results.json.
std::string JournalPath(const std::string& output_dir, std::string_view file_name);

// Replaces the file at once or not at all.
absl::Status WriteResults(const std::string& path, const google::protobuf::Message& results);

// NotFound; InvalidArgument when it does not hold such a message.
absl::Status ReadResults(const std::string& path, google::protobuf::Message* results);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_RESULTS_IO_H_
