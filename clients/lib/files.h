#ifndef CLIENTS_LIB_FILES_H_
#define CLIENTS_LIB_FILES_H_

#include <string>

#include "absl/status/status.h"

namespace mechinterp {

// What the clients need of files beyond services/common/text_file.h.
// Thread-safe; every error names the path.

// Makes the folder of `path` and finds out whether `path` can be written, so
// that an hour of work is not lost to a wrong path. Leaves an existing file as
// it is. Errors: PermissionDenied, FailedPrecondition.
absl::Status CheckWritable(const std::string& path);

// "path: what: reason of the system", with the code that fits `error_number`.
absl::Status FileError(const std::string& path, const std::string& what, int error_number);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_FILES_H_
