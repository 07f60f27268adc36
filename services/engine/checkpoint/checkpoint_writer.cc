#include "services/engine/checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/output_file.h"
#include "services/engine/checkpoint/partial_directory.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kIndexName[] = "model.safetensors.index.json";

struct Shard {
  std::string file;
  absl::Span<const TensorSource> tensors;
};

struct Plan {
  std::vector<Shard> shards;
  uint64_t tensor_bytes = 0;
};

// Cuts the tensors, in order, where the next one would no longer fit.
absl::StatusOr<Plan> PlanShards(absl::Span<const TensorSource> tensors, uint64_t shard_bytes) {
  Plan plan;
  std::set<std::string> names;
  uint64_t used = 0;
  size_t begin = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!names.insert(tensors[i].name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensors[i].name, "' is given twice"));
    }
    ABSTRACT_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensors[i]));
    if (i > begin && bytes > shard_bytes - std::min(used, shard_bytes)) {
      plan.shards.push_back({"", tensors.subspan(begin, i - begin)});
      begin = i;
      used = 0;
    }
    used += bytes;
    if (__builtin_add_overflow(plan.tensor_bytes, bytes, &plan.tensor_bytes)) {
      return absl::InvalidArgumentError("the tensors' sizes add up to more than 2^64 bytes");
    }
  }
  plan.shards.push_back({"", tensors.subspan(begin)});
  for (size_t i = 0; i < plan.shards.size(); ++i) {
    plan.shards[i].file = plan.shards.size() == 1
                              ? "model.safetensors"
                              : absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, plan.shards.size());
  }
  return plan;
}

absl::Status CheckFileNames(const CheckpointFiles& files) {
  for (const auto& [name, content] : files) {
    if (name.empty() || name == "." || name == ".." || absl::StrContains(name, '/') || name == kIndexName ||
        absl::EndsWith(name, ".safetensors")) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", name, "' cannot be the name of a file beside the weights"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFreeSpace(const std::string& directory, const std::string& partial, uint64_t needed) {
  std::error_code error;
  const fs::space_info space = fs::space(partial, error);
  if (error || space.available >= needed) return absl::OkStatus();  // unknown: writing will tell
  return absl::ResourceExhaustedError(
      absl::StrFormat("%s: not enough room on the disk: %.1f MB are needed, %.1f MB are free", directory,
                      static_cast<double>(needed) * 1e-6, static_cast<double>(space.available) * 1e-6));
}

std::string IndexText(const Plan& plan) {
  nlohmann::json index = {{"metadata", {{"total_size", plan.tensor_bytes}}}};
  for (const Shard& shard : plan.shards) {
    for (const TensorSource& tensor : shard.tensors) index["weight_map"][tensor.name] = shard.file;
  }
  return index.dump(2) + "\n";
}

}  // namespace

absl::Status WriteCheckpoint(const std::string& directory, absl::Span<const TensorSource> tensors,
                             const CheckpointFiles& files, const CheckpointWriteOptions& options) {
  ABSTRACT_RETURN_IF_ERROR(CheckFileNames(files));
  ABSTRACT_ASSIGN_OR_RETURN(const Plan plan, PlanShards(tensors, options.shard_bytes));
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<PartialDirectory> partial,
                            PartialDirectory::Create(directory));
  ABSTRACT_RETURN_IF_ERROR(CheckFreeSpace(directory, partial->path(), plan.tensor_bytes));
  const std::string root = partial->path() + "/";
  for (const Shard& shard : plan.shards) {
    // transformers refuses a file that does not say which framework wrote it.
    ABSTRACT_RETURN_IF_ERROR(WriteSafetensorsFile(root + shard.file, shard.tensors, {{"format", "pt"}}));
  }
  if (plan.shards.size() > 1) ABSTRACT_RETURN_IF_ERROR(WriteAndSync(root + kIndexName, IndexText(plan)));
  // After the weights, so that even the partial directory of a killed writer has
  // no config.json to be loaded by.
  for (const auto& [name, content] : files) ABSTRACT_RETURN_IF_ERROR(WriteAndSync(root + name, content));
  return partial->Publish();
}

}  // namespace mechinterp::engine
