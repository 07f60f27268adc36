#include "clients/lib/results_io.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/common/experiments.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {

std::string ResultsFolder(const std::string& output_dir) {
  return (std::filesystem::path(output_dir) / "results").string();
}

std::string ResultsPath(const std::string& output_dir, v1::ExperimentKind experiment) {
  return (std::filesystem::path(ResultsFolder(output_dir)) / InfoOf(experiment).file_name).string();
}

std::string JournalPath(const std::string& output_dir, v1::ExperimentKind experiment) {
  const auto stem = absl::StripSuffix(InfoOf(experiment).file_name, "_results.json");
  return absl::StrCat(ResultsFolder(output_dir), "/.", stem, ".journal.jsonl");
}

std::string FinishedPath(const std::string& output_dir, v1::ExperimentKind experiment) {
  const auto stem = absl::StripSuffix(InfoOf(experiment).file_name, "_results.json");
  return absl::StrCat(ResultsFolder(output_dir), "/.", stem, ".finished");
}

absl::Status WriteResults(const std::string& path, const google::protobuf::Message& results) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string json, MessageToJson(results, JsonStyle::kReadable));
  return WriteTextFileAtomically(path, json);
}

absl::Status ReadResults(const std::string& path, google::protobuf::Message* results) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path));
  const absl::Status status = MessageFromJson(content, results);
  return status.ok() ? status : WithContext(status, path);
}

}  // namespace mechinterp
