#include "services/common/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

absl::Status CannotError(const std::string& action, const std::string& path, int error_number) {
  return SystemError(absl::StrCat("cannot ", action, " ", path), error_number);
}

absl::Status TooLongError(const std::string& path, uint64_t bytes, uint64_t max_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": ", bytes, " bytes long; at most ", max_bytes, " can be right"));
}

absl::Status WriteAndSync(const std::string& temporary, const std::string& path, const std::string& content) {
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return CannotError("write", path, errno);
  const absl::Cleanup close_file = [file] { close(file); };
  for (size_t offset = 0; offset < content.size();) {
    const ssize_t written = write(file, content.data() + offset, content.size() - offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return CannotError("write", path, errno);
    offset += static_cast<size_t>(written);
  }
  if (fsync(file) != 0) return CannotError("write", path, errno);
  return absl::OkStatus();
}

}  // namespace

absl::Status SystemError(const std::string& what, int error_number) {
  const std::string message = absl::StrCat(what, ": ", std::strerror(error_number));
  if (error_number == ENOENT) return absl::NotFoundError(message);
  if (error_number == EACCES || error_number == EPERM || error_number == EROFS) {
    return absl::PermissionDeniedError(message);
  }
  return absl::FailedPreconditionError(message);
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  // Without waiting: a pipe of this name would else hold the program forever.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return CannotError("read", path, errno);
  const absl::Cleanup close_file = [file] { close(file); };
  struct stat info;
  if (fstat(file, &info) != 0) return CannotError("read", path, errno);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (static_cast<uint64_t>(info.st_size) > max_bytes) return TooLongError(path, info.st_size, max_bytes);
  std::string content;
  content.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  while (true) {
    const ssize_t got = read(file, buffer, sizeof(buffer));
    if (got == 0) return content;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CannotError("read", path, errno);
    content.append(buffer, static_cast<size_t>(got));
    // Longer than it said: it is being written, or the system makes it while it is read.
    if (content.size() > max_bytes) return TooLongError(path, content.size(), max_bytes);
  }
}

absl::string_view DescribePlaceholder(absl::string_view beginning) {
  if (absl::StartsWith(beginning, "version https://git-lfs.github.com/spec/")) {
    return "is a Git LFS pointer, which stands for the file and is not it: `git lfs pull` in its repository "
           "fetches the file";
  }
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(beginning.substr(0, 256));
  for (const absl::string_view tag : {"<!doctype html", "<html"}) {
    if (absl::StartsWithIgnoreCase(text, tag)) {
      return "is an HTML page, as a download saves when the server answers with a page for people (a login, "
             "an "
             "error): download the file again";
    }
  }
  return "";
}

absl::StatusOr<std::string> FileToReplace(const std::string& path) {
  constexpr int kMostLinks = 40;  // as the system itself follows
  std::filesystem::path target = path;
  std::error_code error;
  for (int links = 0; std::filesystem::is_symlink(target, error); ++links) {
    if (links == kMostLinks) return CannotError("write", path, ELOOP);
    target = target.parent_path() / std::filesystem::read_symlink(target, error);
    if (error) return CannotError("write", path, error.value());
  }
  const std::filesystem::file_status status = std::filesystem::status(target, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return absl::FailedPreconditionError(absl::StrCat("cannot write ", path, ": it is no regular file"));
  }
  return target.string();
}

absl::StatusOr<bool> FileExists(const std::string& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) return true;
  if (std::filesystem::is_symlink(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": is a link that leads nowhere"));
  }
  return false;
}

absl::Status WriteTextFileAtomically(const std::string& link, const std::string& content) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string path, FileToReplace(link));
  ABSTRACT_RETURN_IF_ERROR(MakeParentFolder(path));
  // The process id keeps two programs apart that write the same file.
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  absl::Status status = WriteAndSync(temporary, path, content);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0)
    status = CannotError("write", path, errno);
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::Status MakeParentFolder(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (folder.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return CannotError("make the folder", folder.string(), error.value());
  return absl::OkStatus();
}

}  // namespace mechinterp
