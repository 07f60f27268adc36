#include "services/engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/engine/base/bounded_json.h"
#include "services/engine/checkpoint/shard_index.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

// Bounds what a real model's file needs.
constexpr uint64_t kMaxConfigBytes = 1 << 20;

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const fs::path root(directory);
  std::error_code error;
  if (!fs::is_directory(root, error)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such model directory"));
  }
  ABSTRACT_ASSIGN_OR_RETURN(checkpoint.config_text_,
                            ReadSmallFile((root / "config.json").string(), kMaxConfigBytes));
  ABSTRACT_ASSIGN_OR_RETURN(checkpoint.config_,
                            ParseModelConfig(checkpoint.config_text_, (root / "config.json").string()));
  if (const fs::path generation = root / "generation_config.json"; fs::exists(generation, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(generation.string(), kMaxConfigBytes));
    ABSTRACT_RETURN_IF_ERROR(AddGenerationStopTokens(text, generation.string(), checkpoint.config_));
  }

  std::map<std::string, std::string> weight_map;
  std::set<std::string> shards;
  if (const fs::path index = root / "model.safetensors.index.json"; fs::exists(index, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(weight_map, ReadShardIndex(index.string()));
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  } else if (fs::exists(root / "model.safetensors", error)) {
    shards.insert("model.safetensors");
  } else {
    return absl::NotFoundError(
        absl::StrCat(directory, ": holds neither model.safetensors nor model.safetensors.index.json"));
  }

  for (const std::string& shard : shards) {
    ABSTRACT_ASSIGN_OR_RETURN(std::shared_ptr<const SafetensorsFile> file,
                              SafetensorsFile::Open((root / shard).string()));
    for (const auto& [name, view] : file->tensors()) {
      if (!checkpoint.tensors_.emplace(name, view).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(directory, ": tensor '", name, "' is in more than one shard"));
      }
    }
    for (const auto& [tensor, home] : weight_map) {
      if (home == shard && file->Find(tensor) == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat(file->path(), ": tensor '", tensor, "' is not in it, though the index says so"));
      }
    }
    checkpoint.files_.push_back(std::move(file));
  }
  return checkpoint;
}

std::string Checkpoint::name() const {
  fs::path path = fs::path(directory_).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

const TensorView* Checkpoint::Find(absl::string_view name) const {
  auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

std::string Checkpoint::DescribeUnlistedShards() const {
  std::set<std::string> listed;
  for (const auto& file : files_) listed.insert(fs::path(file->path()).filename().string());
  std::vector<std::string> others;
  std::error_code error;
  for (fs::directory_iterator entry(directory_, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (absl::EndsWith(name, ".safetensors") && !listed.contains(name)) others.push_back(name);
  }
  if (others.empty()) return "";
  std::sort(others.begin(), others.end());
  return absl::StrCat(" from the files that are read; there are others that no index lists: ",
                      absl::StrJoin(others, ", "));
}

absl::StatusOr<TensorView> Checkpoint::Tensor(absl::string_view name, absl::Span<const int64_t> shape) const {
  const TensorView* found = Find(name);
  if (found == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": tensor '", name, "' is missing", DescribeUnlistedShards()));
  }
  const TensorView& view = *found;
  if (absl::MakeSpan(view.shape) != shape) {
    return absl::InvalidArgumentError(absl::StrCat(directory_, ": tensor '", name, "' has shape [",
                                                   absl::StrJoin(view.shape, ", "), "], config.json needs [",
                                                   absl::StrJoin(shape, ", "), "]"));
  }
  if (view.dtype != NumberFormat::kFloat32 && view.dtype != NumberFormat::kFloat16 &&
      view.dtype != NumberFormat::kBFloat16) {
    return absl::InvalidArgumentError(absl::StrCat(directory_, ": tensor '", name, "' has dtype ",
                                                   DTypeName(view.dtype), ", needs F32, F16 or BF16"));
  }
  return view;
}

std::vector<std::string> Checkpoint::files() const {
  std::vector<std::string> paths = {(fs::path(directory_) / "config.json").string()};
  const fs::path generation = fs::path(directory_) / "generation_config.json";
  if (std::error_code error; fs::exists(generation, error)) paths.push_back(generation.string());
  for (const auto& file : files_) paths.push_back(file->path());
  return paths;
}

}  // namespace mechinterp::engine
