#include "services/engine/checkpoint/shard_index.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {

namespace {

// The index of a model with 10^5 tensors has some 10 MB.
constexpr uint64_t kMaxIndexBytes = 32 << 20;

// A shard is a file of the checkpoint's own directory, whatever the index says.
bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(absl::string_view("/\0", 2)) == absl::string_view::npos;
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ReadShardIndex(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(path, {.max_bytes = kMaxIndexBytes}));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no 'weight_map'"));
  }
  std::map<std::string, std::string> weight_map;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", Excerpt(tensor), " has a bad file name"));
    }
    weight_map[tensor] = shard.get<std::string>();
  }
  return weight_map;
}

}  // namespace mechinterp::engine
