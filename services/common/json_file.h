#ifndef SERVICES_COMMON_JSON_FILE_H_
#define SERVICES_COMMON_JSON_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace mechinterp {

// Small JSON files, whole: our own, not what a stranger may have made (for that the
// engine has bounded_json). Thread-safe. Errors are text_file.h's, and InvalidArgument
// with path, line and column for what is not JSON.

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);
// The same with keys in the file's order, so that what is written again changes little.
absl::StatusOr<nlohmann::ordered_json> ReadOrderedJsonFile(const std::string& path);

// At once or not at all; makes the folder if needed.
absl::Status WriteJsonFile(const std::string& path, const nlohmann::ordered_json& value, int indent = 2);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_JSON_FILE_H_
