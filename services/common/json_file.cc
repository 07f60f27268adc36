#include "services/common/json_file.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

template <typename Json>
absl::StatusOr<Json> Read(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path));
  try {
    return Json::parse(content);
  } catch (const nlohmann::json::parse_error& error) {
    const std::string_view before = std::string_view(content).substr(0, error.byte > 0 ? error.byte - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0.
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not valid JSON at line ", line, ", column ", before.size() - line_begin + 1));
  }
}

}  // namespace

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path) { return Read<nlohmann::json>(path); }

absl::StatusOr<nlohmann::ordered_json> ReadOrderedJsonFile(const std::string& path) {
  return Read<nlohmann::ordered_json>(path);
}

absl::Status WriteJsonFile(const std::string& path, const nlohmann::ordered_json& value, int indent) {
  return WriteTextFileAtomically(path, value.dump(indent) + "\n");
}

}  // namespace mechinterp
