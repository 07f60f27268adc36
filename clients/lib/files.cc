#include "clients/lib/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "services/common/text_file.h"

namespace mechinterp {

absl::Status FileError(const std::string& path, const std::string& what, int error_number) {
  return SystemError(absl::StrCat(path, ": ", what), error_number);
}

absl::Status CheckWritable(const std::string& path) {
  const std::string what = "cannot be written";
  if (absl::Status status = MakeParentFolder(path); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", what, ": ", status.message()));
  }
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return FileError(path, what, EISDIR);
  if (std::filesystem::exists(path, error) && access(path.c_str(), W_OK) != 0) {
    return FileError(path, what, errno);
  }
  // Results replace the file by a new one beside it: that must be possible too.
  const std::string probe = absl::StrCat(path, ".", getpid(), ".probe");
  const int file = open(probe.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return FileError(path, what, errno);
  close(file);
  unlink(probe.c_str());
  return absl::OkStatus();
}

}  // namespace mechinterp
