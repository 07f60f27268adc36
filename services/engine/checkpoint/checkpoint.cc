#include "services/engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/checkpoint/shard_index.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/checkpoint/unused_tensors.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

// Bounds what a real model's file needs.
constexpr uint64_t kMaxConfigBytes = 1 << 20;

bool HaveSameContents(const TensorView& a, const TensorView& b) {
  const bool same = a.dtype == b.dtype && a.shape == b.shape && a.bytes.size() == b.bytes.size() &&
                    std::memcmp(a.bytes.data(), b.bytes.data(), a.bytes.size()) == 0;
  for (const TensorView& view : {a, b}) ReleasePages(view);
  return same;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return absl::NotFoundError(absl::StrCat(directory, ": no such model directory"));
  }
  ABSTRACT_RETURN_IF_ERROR(checkpoint.ReadConfig());
  ABSTRACT_RETURN_IF_ERROR(checkpoint.OpenFiles());
  ABSTRACT_RETURN_IF_ERROR(checkpoint.SettleHead());
  ABSTRACT_RETURN_IF_ERROR(checkpoint.CheckTensorNames());
  return checkpoint;
}

absl::Status Checkpoint::ReadConfig() {
  const fs::path root(directory_);
  const std::string path = (root / "config.json").string();
  ABSTRACT_ASSIGN_OR_RETURN(config_text_, ReadTextFile(path, kMaxConfigBytes));
  ABSTRACT_ASSIGN_OR_RETURN(config_, ParseModelConfig(config_text_, path));
  const std::string generation = (root / "generation_config.json").string();
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_generation, FileExists(generation));
  if (has_generation) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(generation, kMaxConfigBytes));
    ABSTRACT_RETURN_IF_ERROR(UseGenerationStopTokens(text, generation, config_));
  }
  if (std::error_code error; fs::exists(root / "adapter_config.json", error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory_,
                     ": holds an adapter beside the model (adapter_config.json), which is not applied here: "
                     "merge it into the model (in PEFT: merge_and_unload), or take it out of the folder"));
  }
  return absl::OkStatus();
}

// As transformers: a single file goes before an index, which may be left from older weights.
absl::Status Checkpoint::OpenFiles() {
  constexpr char kSingle[] = "model.safetensors", kIndex[] = "model.safetensors.index.json";
  const fs::path root(directory_);
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_index, FileExists((root / kIndex).string()));
  ABSTRACT_ASSIGN_OR_RETURN(const bool has_single, FileExists((root / kSingle).string()));
  if (!has_single) {
    if (has_index) return OpenShards((root / kIndex).string());
    return absl::NotFoundError(absl::StrCat(directory_, ": holds neither ", kSingle, " nor ", kIndex));
  }
  if (has_index) {
    remarks_.push_back(absl::StrCat(directory_, ": ", kSingle, " is read, and the shards of the ", kIndex,
                                    " beside it are not"));
  }
  return AddFile(kSingle);
}

absl::Status Checkpoint::OpenShards(const std::string& index) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto weight_map, ReadShardIndex(index));
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  for (const std::string& shard : shards) {
    ABSTRACT_RETURN_IF_ERROR(AddFile(shard));
    for (const auto& [tensor, home] : weight_map) {
      if (home == shard && files_.back()->Find(tensor) == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(files_.back()->path(), ": tensor '", tensor,
                                                       "' is not in it, though the index says so"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddFile(const std::string& name) {
  ABSTRACT_ASSIGN_OR_RETURN(std::shared_ptr<const SafetensorsFile> file,
                            SafetensorsFile::Open((fs::path(directory_) / name).string()));
  for (const auto& [tensor, view] : file->tensors()) {
    if (!tensors_.emplace(tensor, view).second) {
      return absl::InvalidArgumentError(
          absl::StrCat(directory_, ": tensor '", tensor, "' is in more than one shard"));
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

// A head in the files that is not the embedding has been trained, whatever config.json says.
absl::Status Checkpoint::SettleHead() {
  const TensorInfo head = TensorOf(config_, TensorRole::kUnembedding);
  const TensorView* stored = Find(head.name);
  if (!config_.tied_embeddings || stored == nullptr) return absl::OkStatus();
  if (!IsNf4(*this, head.name)) {
    ABSTRACT_RETURN_IF_ERROR(Tensor(head.name, head.shape).status());
    const TensorView* embedding = Find(TensorOf(config_, TensorRole::kEmbedding).name);
    if (embedding != nullptr && HaveSameContents(*stored, *embedding)) return absl::OkStatus();
  }
  config_.tied_embeddings = false;
  remarks_.push_back(absl::StrCat(directory_,
                                  ": config.json ties the output head to the embedding "
                                  "(tie_word_embeddings), but '",
                                  head.name, "' in the files is another matrix, which is used"));
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckTensorNames() {
  std::vector<std::string> names;
  for (const auto& [name, view] : tensors_) names.push_back(name);
  absl::StatusOr<std::vector<std::string>> unused = FindUnusedTensors(config_, names);
  if (!unused.ok()) {
    return absl::Status(unused.status().code(), absl::StrCat(directory_, ": ", unused.status().message()));
  }
  if (!unused->empty()) {
    remarks_.push_back(absl::StrCat(directory_, ": ", unused->size(), " tensors are not used, such as '",
                                    unused->front(), "': buffers that the configuration determines"));
  }
  return absl::OkStatus();
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
