#ifndef SERVICES_ENGINE_CHECKPOINT_PARTIAL_DIRECTORY_H_
#define SERVICES_ENGINE_CHECKPOINT_PARTIAL_DIRECTORY_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mechinterp::engine {

// A directory that comes into being whole or not at all. Its files are written
// into `.NAME.partial` beside it, which Publish renames. Destroying the object
// before that removes the partial directory; after a kill it stays behind, and
// the next Create for the same target clears it away. A lock keeps two writers
// of one target apart. One thread at a time.
class PartialDirectory {
 public:
  // Makes the folders around `target` too. Errors: AlreadyExists (`target` is
  // there already, whatever it is), Unavailable (another process or thread is
  // writing it), and the system's, all naming the path.
  static absl::StatusOr<std::unique_ptr<PartialDirectory>> Create(const std::string& target);
  ~PartialDirectory();
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;

  // Where to write: no trailing slash.
  const std::string& path() const { return path_; }

  // Renames to the target. Every file in it must be synced and closed.
  absl::Status Publish();

 private:
  PartialDirectory(std::string path, std::string target)
      : path_(std::move(path)), target_(std::move(target)) {}
  absl::Status MakeAndLock();

  std::string path_;
  std::string target_;
  int descriptor_ = -1;  // of the directory; holds the lock
  bool remove_ = false;  // it is ours, and not published
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_PARTIAL_DIRECTORY_H_
