#include "services/engine/checkpoint/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

// The most that macOS takes in one call is 2 GiB - 1.
constexpr size_t kMaxBytesPerCall = size_t{1} << 30;

absl::Status CannotWrite(const std::string& path, int error_number) {
  return absl::ErrnoToStatus(error_number, absl::StrCat("cannot write ", path));
}

}  // namespace

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return CannotWrite(path, errno);
  return OutputFile(path, descriptor);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

absl::Status OutputFile::WriteAt(uint64_t offset, absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kMaxBytesPerCall);
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return CannotWrite(path_, errno);
    bytes.remove_prefix(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status OutputFile::SyncAndClose() {
  const int synced = ::fsync(descriptor_);
  const int sync_error = errno;
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (synced != 0) return CannotWrite(path_, sync_error);
  if (closed != 0) return CannotWrite(path_, errno);
  return absl::OkStatus();
}

absl::Status WriteAndSync(const std::string& path, const std::string& content) {
  ABSTRACT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  ABSTRACT_RETURN_IF_ERROR(file.WriteAt(
      0, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(content.data()), content.size())));
  return file.SyncAndClose();
}

}  // namespace mechinterp::engine
