#include "clients/lib/results_io.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {

std::string ResultsPath(const std::string& output_dir, std::string_view file_name) {
  return (std::filesystem::path(output_dir) / "results" / file_name).string();
}

std::string JournalPath(const std::string& output_dir, std::string_view file_name) {
  const auto stem = absl::StripSuffix({file_name.data(), file_name.size()}, "_results.json");
  return ResultsPath(output_dir, absl::StrCat(".", stem, ".journal.jsonl"));
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
