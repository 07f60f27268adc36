#ifndef SERVICES_ENGINE_CHECKPOINT_OUTPUT_FILE_H_
#define SERVICES_ENGINE_CHECKPOINT_OUTPUT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace mechinterp::engine {

// A file being written, at any offset and of any size. Errors name the path and
// the system's reason (ResourceExhausted: the disk is full; PermissionDenied;
// NotFound: the folder is missing; ...). One thread at a time.
class OutputFile {
 public:
  // Makes the file, or empties one that is there.
  static absl::StatusOr<OutputFile> Create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> bytes);
  // Waits until the disk has everything, and closes. Some file systems tell only
  // here that they are full, so a file counts as written only after this.
  absl::Status SyncAndClose();

 private:
  OutputFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}

  std::string path_;
  int descriptor_;
};

// A small file, whole, on the disk when this returns.
absl::Status WriteAndSync(const std::string& path, const std::string& content);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_OUTPUT_FILE_H_
