#ifndef SERVICES_COMMON_PROTO_JSON_H_
#define SERVICES_COMMON_PROTO_JSON_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace mechinterp {

// Protobuf's JSON form with field names as in the .proto files. Thread-safe.

enum class JsonStyle {
  // One line; fields at their default are left out.
  kCompact,
  // One line; numbers, texts and lists are printed even at their default, so
  // that a reader without the schema finds every field.
  kComplete,
  // kComplete, indented.
  kReadable,
};

// InvalidArgument when a text is not UTF-8 or a time is out of range.
absl::StatusOr<std::string> MessageToJson(const google::protobuf::Message& message, JsonStyle style);

// Fields this program does not know are skipped. InvalidArgument when `json` is
// not JSON or does not fit the message.
absl::Status MessageFromJson(const std::string& json, google::protobuf::Message* message);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_PROTO_JSON_H_
