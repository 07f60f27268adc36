#ifndef SERVICES_COMMON_JSON_FILE_H_
#define SERVICES_COMMON_JSON_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace mechinterp {

// JSON files, whole, and JSON in files, read so that no text, whoever made it, takes more
// than a bounded amount of memory or stack: what walks through a document later (dump,
// comparison) goes as deep as the document. Thread-safe. Errors are text_file.h's, and
// InvalidArgument with path, line and column for what is not JSON in UTF-8 or is nested too
// deep. Of what Python writes and JSON does not have (NaN, Infinity) the message says so.

struct JsonLimits {
  uint64_t max_bytes = uint64_t{64} << 20;
  int max_depth = 32;
};

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});
// The same with keys in the file's order, so that what is written again changes little.
absl::StatusOr<nlohmann::ordered_json> ReadOrderedJsonFile(const std::string& path,
                                                           const JsonLimits& limits = {});

// JSON that has been read already; `path` is for messages only.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, const std::string& path,
                                         int max_depth = JsonLimits().max_depth);
// InvalidArgument too for JSON that is not an object.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, const std::string& path);

// A value's text for messages, of which no more than a line is shown.
std::string Excerpt(const nlohmann::json& value);

// At once or not at all; makes the folder if needed.
absl::Status WriteJsonFile(const std::string& path, const nlohmann::ordered_json& value, int indent = 2);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_JSON_FILE_H_
