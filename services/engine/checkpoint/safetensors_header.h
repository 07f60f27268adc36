#ifndef SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H_
#define SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/engine/checkpoint/safetensors.h"

namespace mechinterp::engine {

// What a file's header says, of which only the syntax has been checked.
struct SafetensorsHeader {
  struct Entry {
    NumberFormat dtype = NumberFormat::kFloat32;
    std::vector<int64_t> shape;  // no dimension is negative
    uint64_t begin = 0;          // of the bytes, counted from the end of the header
    uint64_t end = 0;
  };
  std::map<std::string, Entry, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
};

// The error of a file that is not what it should be.
absl::Status MalformedSafetensors(const std::string& path, absl::string_view what);

// Reads the JSON header. It is read as a stream of events, never built as a
// document, so that a hostile header takes no more memory than a few times its
// own length and no stack. Errors: InvalidArgument naming file and tensor (not
// JSON, not UTF-8, not an object of {dtype, shape, data_offsets}, a name twice),
// Unimplemented (a dtype that the engine does not know). `path` is for messages.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text, const std::string& path);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_HEADER_H_
