#include "services/engine/tokenizer/json_fields.h"

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/common/text.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

constexpr size_t kLongestQuote = 80;
// Far above any vocabulary; keeps a damaged id from reserving gigabytes.
constexpr int64_t kLargestId = (1 << 24) - 1;

}  // namespace

std::string Quoted(std::string_view text) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(Shortened(text, kLongestQuote)), "\"");
}

std::string QuotedValue(const json& value) {
  if (value.is_array()) return "an array";
  if (value.is_object()) return "an object";
  if (value.is_string()) return Quoted(value.get_ref<const std::string&>());
  return value.dump();
}

absl::Status Malformed(std::string_view part, std::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(AbslView(part), ": expected ", AbslView(expected)));
}

absl::Status Unsupported(std::string_view part, const json& found, std::string_view supported) {
  return absl::UnimplementedError(absl::StrCat(AbslView(part), ": ", QuotedValue(found),
                                               " is not supported (only ", AbslView(supported), ")"));
}

const json& Member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) return kNull;
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

std::string TypeOf(const json& stage) {
  const json& type = Member(stage, "type");
  return type.is_string() ? type.get<std::string>() : std::string();
}

absl::StatusOr<bool> ReadBool(const json& object, std::string_view path, const char* key, bool if_absent) {
  const json& value = Member(object, key);
  if (value.is_null()) return if_absent;
  if (!value.is_boolean()) return Malformed(absl::StrCat(AbslView(path), ".", key), "true or false");
  return value.get<bool>();
}

absl::StatusOr<std::string> ReadString(const json& object, std::string_view path, const char* key) {
  const json& value = Member(object, key);
  if (!value.is_string()) return Malformed(absl::StrCat(AbslView(path), ".", key), "a text");
  return value.get<std::string>();
}

absl::StatusOr<std::string> ReadCharacter(const json& object, std::string_view path, const char* key) {
  const json& value = Member(object, key);
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    if (!text.empty() && ReadUtf8Unit(text).length == text.size()) return text;
  }
  return Malformed(absl::StrCat(AbslView(path), ".", key), "one character");
}

std::optional<TokenId> ReadId(const json& value) {
  if (!value.is_number_integer() || value < 0 || value > kLargestId) return std::nullopt;
  return value.get<TokenId>();
}

absl::Status MalformedId(std::string_view part) {
  return Malformed(part, absl::StrCat("an id from 0 to ", kLargestId));
}

}  // namespace mechinterp::engine
