#include "services/engine/checkpoint/foreign_format.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kNeeded[] =
    "; needed is a directory in Hugging Face's layout: config.json, tokenizer.json, and model.safetensors or "
    "its "
    "shards with model.safetensors.index.json";

absl::Status Foreign(const fs::path& path, absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(path.string(), " ", what, kNeeded));
}

bool StartsWithGgufMagic(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return false;  // opening a pipe would wait for its writer
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string(magic, sizeof magic) == "GGUF";
}

absl::Status CheckFile(const fs::path& path) {
  if (StartsWithGgufMagic(path) || path.extension() == ".gguf") {
    return Foreign(path, "is a GGUF file, which is llama.cpp's format");
  }
  if (path.extension() == ".safetensors")
    return Foreign(path, "is one file of a checkpoint: name its directory");
  return Foreign(path, "is a file");
}

// What a file says about the directory it lies in; empty for files that say
// nothing.
absl::string_view WhatHolds(const std::string& file) {
  if (absl::EndsWith(file, ".gguf")) return "holds GGUF files, which are llama.cpp's format";
  if (absl::StartsWith(file, "pytorch_model")) {
    return "holds its weights as PyTorch pickles, which can run code when they are read; load them in "
           "transformers and save_pretrained(..., safe_serialization=True), or take a revision with "
           "safetensors";
  }
  if (absl::StartsWith(file, "consolidated.") && absl::EndsWith(file, ".pth")) {
    return "holds Meta's original files; the repositories on Hugging Face have the same weights beside them, "
           "and transformers' convert_llama_weights_to_hf.py makes them";
  }
  if (absl::StartsWith(file, "consolidated") && absl::EndsWith(file, ".safetensors")) {
    return "holds Mistral's own files; the repository has model-*.safetensors with the same weights";
  }
  if (file == "adapter_config.json")
    return "holds an adapter (LoRA), not a model: merge it into its model first";
  if (file == "snapshots") return "is a folder of the hub cache: name the model by its repo id, ORG/NAME";
  return "";
}

bool IsCheckpointWeights(const std::string& file) {
  return absl::StartsWith(file, "model") &&
         (absl::EndsWith(file, ".safetensors") || absl::EndsWith(file, ".safetensors.index.json"));
}

}  // namespace

absl::Status CheckNotForeign(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return CheckFile(path);
  std::set<std::string> files;  // in an order of their own, so that the answer is always the same
  for (const fs::path& folder : {fs::path(path), fs::path(path) / "original"}) {
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
      files.insert(entry->path().filename().string());
    }
  }
  if (std::any_of(files.begin(), files.end(), IsCheckpointWeights)) return absl::OkStatus();
  for (const std::string& file : files) {
    if (const absl::string_view what = WhatHolds(file); !what.empty()) return Foreign(path, what);
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
