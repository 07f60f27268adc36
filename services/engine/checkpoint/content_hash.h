#ifndef SERVICES_ENGINE_CHECKPOINT_CONTENT_HASH_H_
#define SERVICES_ENGINE_CHECKPOINT_CONTENT_HASH_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace mechinterp::engine {

// SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(const void* data, size_t bytes);
  void Add(std::string_view text) { Add(text.data(), text.size()); }
  // 64 digits; once, at the end.
  std::string Hex();

 private:
  void* context_;
};

// One hash of several files: that of what `sha256sum NAME...` prints for them, in the order of
// their names, from within their folder. So `sha256sum config.json model.safetensors |
// sha256sum` shows it too. Files are hashed side by side on threads of their own. Thread-safe.
//
// Hashes of single files of at least 1 MiB are kept at `cache_path` by path, size and times of
// change, and not taken again while these are the same; empty: kept nowhere. A cache that
// cannot be read or written costs time and nothing else.
// Errors: those of the system, naming the file.
absl::StatusOr<std::string> HashOfFiles(std::vector<std::string> paths, const std::string& cache_path);

// $XDG_CACHE_HOME/abstract/file_hashes.json, or .cache below the home folder; empty when there
// is neither.
std::string DefaultHashCachePath();

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_CONTENT_HASH_H_
