#ifndef SERVICES_ENGINE_BASE_BOUNDED_JSON_H_
#define SERVICES_ENGINE_BASE_BOUNDED_JSON_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace mechinterp::engine {

// JSON files, and JSON in files, of a checkpoint, read so that no file, however made, takes more
// than a bounded amount of memory or stack. Thread-safe.

// A regular file of at most `max_bytes`, whole. Errors: NotFound and whatever
// else the system says, InvalidArgument (not a regular file, or too long).
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, uint64_t max_bytes);

// `text` as a JSON object; `path` is for messages only. Errors: InvalidArgument
// (malformed, not UTF-8, not an object, or nested deeper than 32 levels).
absl::StatusOr<nlohmann::json> ParseJsonObject(const std::string& text, const std::string& path);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_BASE_BOUNDED_JSON_H_
