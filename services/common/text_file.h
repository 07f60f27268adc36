#ifndef SERVICES_COMMON_TEXT_FILE_H_
#define SERVICES_COMMON_TEXT_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mechinterp {

// Files, whole, read so that none, whoever made it, hangs the program or takes more memory
// than its reader allows. Thread-safe. Every error names the path and the system's reason:
// NotFound, PermissionDenied, or FailedPrecondition for the rest.

// "what: the system's reason", with the code of the three that fits `error_number`.
absl::Status SystemError(const std::string& what, int error_number);

// Where a reader knows no better bound.
inline constexpr uint64_t kMaxTextFileBytes = uint64_t{256} << 20;

// InvalidArgument too: for what is no regular file (a folder; a pipe, which could keep its
// reader waiting forever), and for one longer than `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes = kMaxTextFileBytes);

// What often lies in the place of a file that was to be downloaded, told by how it begins:
// "is a Git LFS pointer ...", with what to do about it. Empty for everything else.
absl::string_view DescribePlaceholder(absl::string_view beginning);

// Makes the folder if needed, then writes a temporary file beside `path` and
// renames it: a reader, or a crash, never sees half a file.
absl::Status WriteTextFileAtomically(const std::string& path, const std::string& content);

// The file that is to be written where `path` leads: links are followed, also those to nothing
// yet. FailedPrecondition where something else than a regular file is there, which a rename
// would put an end to: a device, a pipe, a folder.
absl::StatusOr<std::string> FileToReplace(const std::string& path);

// Whether there is something at `path`. NotFound for a link that leads nowhere.
absl::StatusOr<bool> FileExists(const std::string& path);

// Makes the folder that `path` lies in, and those around it.
absl::Status MakeParentFolder(const std::string& path);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TEXT_FILE_H_
