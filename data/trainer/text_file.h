#ifndef DATA_TRAINER_TEXT_FILE_H_
#define DATA_TRAINER_TEXT_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace mechinterp::trainer {

// Whole files, for the few small ones this tool reads and writes. Errors name
// the path. Key order in JSON files is kept, so that diffs stay small.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);
absl::Status WriteTextFile(const std::string& path, const std::string& text);
absl::StatusOr<nlohmann::ordered_json> ReadJsonFile(const std::string& path);
absl::Status WriteJsonFile(const std::string& path, const nlohmann::ordered_json& value, int indent = 2);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_TEXT_FILE_H_
