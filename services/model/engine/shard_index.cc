#include "services/model/engine/shard_index.h"

#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp::engine {

absl::StatusOr<std::map<std::string, std::string>> ReadShardIndex(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  const nlohmann::json index = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no 'weight_map'"));
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    // A shard is a file of this directory, whatever the index says.
    if (!shard.is_string() ||
        std::filesystem::path(shard.get<std::string>()).filename() != shard.get<std::string>()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": '", tensor, "' has a bad file name"));
    }
    weight_map[tensor] = shard.get<std::string>();
  }
  return weight_map;
}

}  // namespace mechinterp::engine
