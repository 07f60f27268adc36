#include "services/engine/checkpoint/partial_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

// "models/x/" as "models/x", so that there is a last part to rename.
fs::path WithoutTrailingSlash(const std::string& directory) {
  fs::path path = fs::path(directory).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

absl::Status RemoveContents(const std::string& directory) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    fs::remove_all(entry->path(), error);
    if (error) break;
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot clear ", directory));
  return absl::OkStatus();
}

// Makes a rename in a folder last through a power cut. Some file systems do not
// know how; the rename itself stands all the same.
void SyncFolder(const fs::path& folder) {
  const int descriptor = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PartialDirectory>> PartialDirectory::Create(const std::string& target_text) {
  const fs::path target = WithoutTrailingSlash(target_text);
  if (target.empty()) return absl::InvalidArgumentError("the directory to write has an empty name");
  std::error_code ignored, error;
  if (fs::exists(fs::symlink_status(target, ignored))) {
    return absl::AlreadyExistsError(absl::StrCat(target.string(), " exists already; it is left as it is"));
  }
  const fs::path folder = target.parent_path();
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", folder.string()));

  const fs::path path = folder / absl::StrCat(".", target.filename().string(), ".partial");
  std::unique_ptr<PartialDirectory> partial(new PartialDirectory(path.string(), target.string()));
  ABSTRACT_RETURN_IF_ERROR(partial->MakeAndLock());
  ABSTRACT_RETURN_IF_ERROR(RemoveContents(partial->path_));  // of a writer that was killed
  return partial;
}

absl::Status PartialDirectory::MakeAndLock() {
  if (::mkdir(path_.c_str(), 0755) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", path_));
  }
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path_));
  // Network file systems may have no such locks; then the writers are on their own.
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return absl::UnavailableError(
        absl::StrCat(target_, " is being written by another process (", path_, ")"));
  }
  remove_ = true;
  return absl::OkStatus();
}

PartialDirectory::~PartialDirectory() {
  std::error_code ignored;
  if (remove_) fs::remove_all(path_, ignored);
  if (descriptor_ >= 0) ::close(descriptor_);
}

absl::Status PartialDirectory::Publish() {
  SyncFolder(path_);
  if (std::rename(path_.c_str(), target_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot rename ", path_, " to ", target_));
  }
  remove_ = false;
  SyncFolder(fs::path(target_).parent_path());
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
