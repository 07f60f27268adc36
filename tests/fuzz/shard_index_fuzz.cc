// model.safetensors.index.json.

#include <filesystem>

#include "services/engine/checkpoint/shard_index.h"
#include "tests/fuzz/fuzz_target.h"

ABSTRACT_FUZZ_TARGET(shard_index) {
  using mechinterp::fuzz::Require;
  const std::string path = mechinterp::fuzz::ScratchFile("index.json", input);
  const auto index = mechinterp::engine::ReadShardIndex(path);
  if (!index.ok()) return mechinterp::fuzz::RequireRefusal(index.status(), path);
  const std::filesystem::path folder = "/checkpoint";
  for (const auto& [tensor, shard] : *index) {
    Require((folder / shard).lexically_normal().parent_path() == folder, "shards lie in the checkpoint");
    Require(shard.find('\0') == std::string::npos, "a shard's name is all of its name");
  }
}
