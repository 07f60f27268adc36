#ifndef SERVICES_COMMON_SUBPROCESS_H_
#define SERVICES_COMMON_SUBPROCESS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mechinterp {

struct SubprocessLimits {
  absl::Duration time = absl::Seconds(10);
  size_t output_bytes = 4 << 20;
};

struct SubprocessResult {
  int exit_code = 0;
  std::string output;
};

// Runs a program with `input` as its standard input until it ends, and returns what it
// writes to its standard output. What it writes to its standard error is lost. It is
// found in $PATH, gets this process's environment, and is killed with its process group
// when it exceeds a limit. Thread-safe; waits.
// Errors: NotFound when there is no such program, DeadlineExceeded, ResourceExhausted
// (output), Aborted when a signal ended it, Internal when the system refuses.
absl::StatusOr<SubprocessResult> RunSubprocess(const std::vector<std::string>& arguments,
                                               const std::string& input, const SubprocessLimits& limits);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_SUBPROCESS_H_
