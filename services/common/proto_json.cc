#include "services/common/proto_json.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/stubs/common.h"
#include "google/protobuf/util/json_util.h"
#include "services/common/text.h"

namespace mechinterp {
namespace {

constexpr size_t kMaxProblemBytes = 400;

google::protobuf::util::JsonPrintOptions PrintOptions(JsonStyle style) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = style == JsonStyle::kReadable;
#if GOOGLE_PROTOBUF_VERSION >= 5026000  // Renamed there.
  options.always_print_fields_with_no_presence = style != JsonStyle::kCompact;
#else
  options.always_print_primitive_fields = style != JsonStyle::kCompact;
#endif
  return options;
}

}  // namespace

absl::StatusOr<std::string> MessageToJson(const google::protobuf::Message& message, JsonStyle style) {
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, PrintOptions(style));
  if (status.ok()) return json;
  return absl::InvalidArgumentError(absl::StrCat("cannot write a ", std::string(message.GetTypeName()),
                                                 " as JSON: ", std::string(status.message())));
}

absl::Status MessageFromJson(const std::string& json, google::protobuf::Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(json, message, options);
  if (status.ok()) return absl::OkStatus();
  // The parser's messages quote values, whatever their length and their bytes.
  const std::string problem = Printable(Shortened(std::string(status.message()), kMaxProblemBytes));
  return absl::InvalidArgumentError(
      absl::StrCat("not a ", std::string(message->GetTypeName()), " in JSON: ", problem));
}

}  // namespace mechinterp
