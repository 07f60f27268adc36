#include "services/common/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/common/status_macros.h"

extern char** environ;

namespace mechinterp {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

absl::Status Refused(const char* what, int error) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(error)));
}

// A file without a name: the child reads it at its own pace, and nobody waits.
absl::StatusOr<std::unique_ptr<FILE, int (*)(FILE*)>> FileOf(const std::string& content) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::tmpfile(), &std::fclose);
  if (file == nullptr) return Refused("a temporary file", errno);
  const bool written = std::fwrite(content.data(), 1, content.size(), file.get()) == content.size();
  if (!written || std::fflush(file.get()) != 0) return Refused("a temporary file", errno);
  std::rewind(file.get());
  return file;
}

// The child is a process group of its own, and blocks and ignores no signals.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& arguments, int input, int output) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == ENOENT) return absl::NotFoundError(absl::StrCat("there is no ", arguments[0], " in the path"));
  if (error != 0) return Refused(arguments[0].c_str(), error);
  return pid;
}

int MillisecondsUntil(absl::Time deadline) {
  return static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(deadline - absl::Now())));
}

absl::Status TooLate() { return absl::DeadlineExceededError("did not end in time"); }

// Until the child closes its end.
absl::StatusOr<std::string> ReadAll(int fd, absl::Time deadline, size_t max_bytes) {
  std::string output;
  char buffer[1 << 14];
  while (true) {
    pollfd waiting = {fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, MillisecondsUntil(deadline));
    if (ready == 0) return TooLate();
    if (ready < 0 && errno == EINTR) continue;
    const ssize_t count = ready < 0 ? -1 : read(fd, buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Refused("reading", errno);
    if (count == 0) return output;
    output.append(buffer, static_cast<size_t>(count));
    if (output.size() > max_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("wrote more than ", max_bytes, " bytes"));
    }
  }
}

absl::StatusOr<int> WaitUntil(pid_t pid, absl::Time deadline) {
  int status = 0;
  while (true) {
    const pid_t ended = waitpid(pid, &status, WNOHANG);
    if (ended == pid) break;
    if (ended < 0 && errno != EINTR) return Refused("waiting", errno);
    if (absl::Now() > deadline) return TooLate();
    absl::SleepFor(absl::Milliseconds(2));
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  return absl::AbortedError(absl::StrCat("was ended by signal ", WTERMSIG(status)));
}

void Kill(pid_t pid) {
  kill(-pid, SIGKILL);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

absl::StatusOr<SubprocessResult> RunSubprocess(const std::vector<std::string>& arguments,
                                               const std::string& input, const SubprocessLimits& limits) {
  const absl::Time deadline = absl::Now() + limits.time;
  ABSTRACT_ASSIGN_OR_RETURN(const auto input_file, FileOf(input));
  int ends[2];
  if (pipe(ends) != 0) return Refused("a pipe", errno);
  Descriptor reading(ends[0]), writing(ends[1]);
  fcntl(reading.get(), F_SETFD, FD_CLOEXEC);
  fcntl(writing.get(), F_SETFD, FD_CLOEXEC);
  ABSTRACT_ASSIGN_OR_RETURN(const pid_t pid, Spawn(arguments, fileno(input_file.get()), writing.get()));
  writing.Close();

  absl::StatusOr<std::string> output = ReadAll(reading.get(), deadline, limits.output_bytes);
  absl::StatusOr<int> exit_code = output.ok() ? WaitUntil(pid, deadline) : output.status();
  if (!output.ok() || absl::IsDeadlineExceeded(exit_code.status())) Kill(pid);
  ABSTRACT_RETURN_IF_ERROR(exit_code.status());
  return SubprocessResult{*exit_code, *std::move(output)};
}

}  // namespace mechinterp
