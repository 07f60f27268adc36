#ifndef SERVICES_COMMON_TEXT_FILE_H_
#define SERVICES_COMMON_TEXT_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace mechinterp {

// Small files, whole. Thread-safe. Every error names the path and the system's
// reason: NotFound, PermissionDenied, or FailedPrecondition for the rest.

// "what: the system's reason", with the code of the three that fits `error_number`.
absl::Status SystemError(const std::string& what, int error_number);

absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// Makes the folder if needed, then writes a temporary file beside `path` and
// renames it: a reader, or a crash, never sees half a file.
absl::Status WriteTextFileAtomically(const std::string& path, const std::string& content);

// Makes the folder that `path` lies in, and those around it.
absl::Status MakeParentFolder(const std::string& path);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TEXT_FILE_H_
