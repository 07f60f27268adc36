#include "services/model/spill_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/content_hash.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr char kFinished[] = ".safetensors";
constexpr char kUnfinished[] = ".partial";
constexpr size_t kHashDigits = 64;
constexpr int64_t kDiskBlock = 4096;

// ErrnoToStatus knows what is ResourceExhausted; a limit on files' sizes is another such.
absl::Status DiskError(int error_number, absl::string_view what) {
  if (error_number == EFBIG) error_number = ENOSPC;
  return absl::ErrnoToStatus(error_number, what);
}

int64_t OnDisk(uint64_t file_bytes) {
  return static_cast<int64_t>((file_bytes + kDiskBlock - 1) / kDiskBlock * kDiskBlock);
}

std::string HashOf(const std::string& handle) {
  engine::Sha256 hash;
  hash.Add(handle);
  return hash.Hex();
}

bool IsOurs(absl::string_view name, absl::string_view ending) {
  if (name.size() != kHashDigits + ending.size() || !absl::EndsWith(name, ending)) return false;
  return std::all_of(name.begin(), name.begin() + kHashDigits,
                     [](char c) { return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f'); });
}

absl::Time LastChange(const struct stat& info) {
#ifdef __APPLE__
  return absl::TimeFromTimespec(info.st_mtimespec);
#else
  return absl::TimeFromTimespec(info.st_mtim);
#endif
}

// Last access is left as it is.
void TimesOf(absl::Time last_use, struct timespec (&times)[2]) {
  times[0] = {0, UTIME_OMIT};
  times[1] = absl::ToTimespec(last_use);
}

absl::Status ReadAt(int descriptor, uint64_t offset, absl::Span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::UnavailableError(absl::ErrnoToStatus(errno, "reading it").message());
    if (got == 0) return absl::DataLossError("it has been cut short");
    bytes.remove_prefix(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int descriptor, absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return DiskError(errno, "writing it");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// A file that is open for reading; closed by whoever opened it.
struct OpenFile {
  int descriptor = -1;
  struct stat info = {};

  ByteSource source() const {
    return {static_cast<uint64_t>(info.st_size),
            [descriptor = descriptor](uint64_t offset, absl::Span<std::byte> bytes) {
              return ReadAt(descriptor, offset, bytes);
            }};
  }
};

absl::StatusOr<OpenFile> OpenToRead(int folder, const std::string& name) {
  // Without waiting: a pipe of this name would else hold the program forever.
  OpenFile file;
  file.descriptor = ::openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file.descriptor < 0 && (errno == ENOENT || errno == ELOOP)) return absl::DataLossError("it is gone");
  if (file.descriptor < 0) return absl::UnavailableError(absl::ErrnoToStatus(errno, "opening it").message());
  if (::fstat(file.descriptor, &file.info) != 0 || !S_ISREG(file.info.st_mode)) {
    ::close(file.descriptor);
    return absl::DataLossError("it is no regular file");
  }
  return file;
}

// The names in a folder.
std::vector<std::string> NamesIn(int folder) {
  std::vector<std::string> names;
  const int descriptor = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = descriptor < 0 ? nullptr : ::fdopendir(descriptor);
  if (stream == nullptr) {
    if (descriptor >= 0) ::close(descriptor);
    return names;
  }
  while (const dirent* entry = ::readdir(stream)) names.emplace_back(entry->d_name);
  ::closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status CheckPrivate(int folder, const std::string& path) {
  struct stat info;
  if (::fstat(folder, &info) != 0) return absl::ErrnoToStatus(errno, path);
  if (info.st_uid != ::geteuid()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " belongs to another user"));
  }
  if ((info.st_mode & 077) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is open to other users; stored runs want a folder of their own: chmod 700 it"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<SpillDirectory>> SpillDirectory::Open(const std::string& path,
                                                                     StoredRunFormat format) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", parent.string()));
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make ", path));
  }
  const int folder = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::shared_ptr<SpillDirectory> directory(new SpillDirectory(path, folder, std::move(format)));
  ABSTRACT_RETURN_IF_ERROR(CheckPrivate(folder, path));
  // Network file systems may have no such locks; then the servers are on their own.
  if (::flock(folder, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return absl::UnavailableError(absl::StrCat("another server keeps its runs in ", path));
  }
  return directory;
}

SpillDirectory::~SpillDirectory() { ::close(descriptor_); }

std::string SpillDirectory::FileName(const std::string& handle) {
  return absl::StrCat(HashOf(handle), kFinished);
}

absl::StatusOr<SpillDirectory::FoundRun> SpillDirectory::Inspect(const std::string& name,
                                                                 absl::Time now) const {
  ABSTRACT_ASSIGN_OR_RETURN(const OpenFile file, OpenToRead(descriptor_, name));
  const absl::Cleanup close_it = [&] { ::close(file.descriptor); };
  FoundRun found;
  ABSTRACT_ASSIGN_OR_RETURN(found.info, format_.ReadInfo(file.source()));
  if (FileName(found.info.handle) != name) return absl::DataLossError("it has another run's name");
  found.last_use = std::min(LastChange(file.info), now);
  found.disk_bytes = OnDisk(static_cast<uint64_t>(file.info.st_size));
  return found;
}

SpillDirectory::Recovery SpillDirectory::Recover(absl::Time now) {
  Recovery recovery;
  for (const std::string& name : NamesIn(descriptor_)) {
    int* removed = nullptr;
    if (IsOurs(name, kUnfinished)) {
      removed = &recovery.unfinished;
    } else if (IsOurs(name, kFinished)) {
      absl::StatusOr<FoundRun> found = Inspect(name, now);
      if (found.ok() && found->last_use + found->info.time_to_live > now) {
        recovery.runs.push_back(*std::move(found));
        continue;
      }
      if (absl::IsUnavailable(found.status())) {
        spdlog::error("the stored run in {}/{} is left out: {}", path_, name, DescribeStatus(found.status()));
        continue;
      }
      removed = found.ok()                                   ? &recovery.expired
                : absl::IsFailedPrecondition(found.status()) ? &recovery.of_other_models
                                                             : &recovery.damaged;
      if (removed == &recovery.damaged) {
        spdlog::error("the stored run in {}/{} is lost: {}", path_, name, DescribeStatus(found.status()));
      }
    } else {
      continue;
    }
    ++*removed;
    ::unlinkat(descriptor_, name.c_str(), 0);
  }
  return recovery;
}

absl::StatusOr<int64_t> SpillDirectory::Write(const StoredRunInfo& info, const engine::RecordedRun& run,
                                              absl::Time last_use, int64_t max_bytes) {
  uint64_t file_bytes = 0;
  ABSTRACT_ASSIGN_OR_RETURN(const std::string prologue, format_.Prologue(info, run, file_bytes));
  if (OnDisk(file_bytes) > max_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("its share of the disk has ",
                                                     std::max<int64_t>(0, max_bytes), " bytes left, ",
                                                     OnDisk(file_bytes), " are needed"));
  }
  const std::string hash = HashOf(info.handle), partial = hash + kUnfinished, name = hash + kFinished;
  ::unlinkat(descriptor_, partial.c_str(), 0);
  int file =
      ::openat(descriptor_, partial.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) return DiskError(errno, absl::StrCat("making a file in ", path_));
  absl::Cleanup give_up = [&] {
    if (file >= 0) ::close(file);
    ::unlinkat(descriptor_, partial.c_str(), 0);
  };
  ABSTRACT_RETURN_IF_ERROR(StoredRunFormat::Write(
      prologue, run, [&](absl::Span<const std::byte> bytes) { return WriteAll(file, bytes); }));
  struct timespec times[2];
  TimesOf(last_use, times);
  // Some file systems tell only here that they are full.
  if (::futimens(file, times) != 0 || ::fsync(file) != 0) return DiskError(errno, "writing it");
  if (::close(std::exchange(file, -1)) != 0) return DiskError(errno, "writing it");
  if (::renameat(descriptor_, partial.c_str(), descriptor_, name.c_str()) != 0) {
    return DiskError(errno, "renaming it");
  }
  std::move(give_up).Cancel();
  ::fsync(descriptor_);  // some file systems do not know how; the name stands all the same
  return OnDisk(file_bytes);
}

absl::StatusOr<engine::RecordedRun> SpillDirectory::Read(const StoredRunInfo& info) const {
  ABSTRACT_ASSIGN_OR_RETURN(const OpenFile file, OpenToRead(descriptor_, FileName(info.handle)));
  const absl::Cleanup close_it = [&] { ::close(file.descriptor); };
  absl::StatusOr<engine::RecordedRun> run;
  try {
    run = format_.ReadRun(file.source(), info);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("there is not enough memory to read it");
  }
  // What was written for this model and is no longer of it has changed.
  if (absl::IsFailedPrecondition(run.status())) return absl::DataLossError(run.status().message());
  return run;
}

absl::Status SpillDirectory::Remove(const std::string& handle) {
  if (::unlinkat(descriptor_, FileName(handle).c_str(), 0) == 0 || errno == ENOENT) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("removing a stored run from ", path_));
}

void SpillDirectory::SetLastUse(const std::string& handle, absl::Time last_use) {
  struct timespec times[2];
  TimesOf(last_use, times);
  ::utimensat(descriptor_, FileName(handle).c_str(), times, AT_SYMLINK_NOFOLLOW);
}

}  // namespace mechinterp
