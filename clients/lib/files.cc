#include "clients/lib/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {

absl::Status FileError(const std::string& path, const std::string& what, int error_number) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error_number));
  if (error_number == ENOENT) return absl::NotFoundError(message);
  if (error_number == EACCES || error_number == EPERM || error_number == EROFS) {
    return absl::PermissionDeniedError(message);
  }
  return absl::FailedPreconditionError(message);
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path));
  try {
    return nlohmann::json::parse(content);
  } catch (const nlohmann::json::parse_error& error) {
    const std::string_view before = std::string_view(content).substr(0, error.byte > 0 ? error.byte - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0.
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not valid JSON at line ", line, ", column ", before.size() - line_begin + 1));
  }
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
