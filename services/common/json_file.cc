#include "services/common/json_file.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

using nlohmann::json;

// "line 3, column 7", of the byte at `offset`.
std::string PlaceOf(absl::string_view text, size_t offset) {
  const absl::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  return absl::StrCat("line ", line, ", column ", before.size() - line_begin + 1);
}

// Walks through malformed text and keeps the place where the parser stops.
class FaultFinder : public nlohmann::json_sax<json> {
 public:
  size_t offset() const { return offset_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_object() override { return true; }
  bool end_array() override { return true; }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    offset_ = position > 0 ? position - 1 : 0;
    return false;
  }

 private:
  size_t offset_ = 0;
};

// What the parser stumbled over, where it is something that people and Python write.
absl::string_view Cause(absl::string_view text, size_t offset) {
  const absl::string_view rest = text.substr(std::min(offset, text.size()));
  if (absl::StartsWith(rest, "NaN") || absl::StartsWith(rest, "Infinity")) {
    return ": NaN and Infinity, which Python writes, are no numbers of JSON";
  }
  const absl::string_view before = absl::StripTrailingAsciiWhitespace(text.substr(0, offset));
  const bool closes = absl::StartsWith(rest, "}") || absl::StartsWith(rest, "]");
  return closes && absl::EndsWith(before, ",") ? ": a comma with nothing after it" : "";
}

absl::Status NotValid(absl::string_view text, const std::string& path) {
  FaultFinder finder;
  json::sax_parse(text.begin(), text.end(), &finder);
  return absl::InvalidArgumentError(absl::StrCat(path, ": not valid JSON at ", PlaceOf(text, finder.offset()),
                                                 Cause(text, finder.offset())));
}

// Where the text is nested deeper than allowed; of malformed text, up to its fault. Counted
// without building anything: the parser takes memory for each level.
std::optional<size_t> FindTooDeep(absl::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > max_depth) return i;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return std::nullopt;
}

template <typename Json>
absl::StatusOr<Json> Parse(absl::string_view text, const std::string& path, int max_depth) {
  if (const absl::string_view what = DescribePlaceholder(text); !what.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " ", what));
  }
  if (const std::optional<size_t> place = FindTooDeep(text, max_depth)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": nested deeper than ", max_depth, " levels, at ", PlaceOf(text, *place)));
  }
  Json document = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) return NotValid(text, path);
  return document;
}

template <typename Json>
absl::StatusOr<Json> Read(const std::string& path, const JsonLimits& limits) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string content, ReadTextFile(path, limits.max_bytes));
  return Parse<Json>(content, path, limits.max_depth);
}

}  // namespace

absl::StatusOr<json> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  return Read<json>(path, limits);
}

absl::StatusOr<nlohmann::ordered_json> ReadOrderedJsonFile(const std::string& path,
                                                           const JsonLimits& limits) {
  return Read<nlohmann::ordered_json>(path, limits);
}

absl::StatusOr<json> ParseJson(absl::string_view text, const std::string& path, int max_depth) {
  return Parse<json>(text, path, max_depth);
}

absl::StatusOr<json> ParseJsonObject(absl::string_view text, const std::string& path) {
  ABSTRACT_ASSIGN_OR_RETURN(json document, ParseJson(text, path));
  if (!document.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  return document;
}

std::string Excerpt(const json& value) {
  constexpr size_t kMaxBytes = 100;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);  // so that no character is cut
  if (text.size() > kMaxBytes) text.replace(kMaxBytes, std::string::npos, "...");
  return text;
}

absl::Status WriteJsonFile(const std::string& path, const nlohmann::ordered_json& value, int indent) {
  return WriteTextFileAtomically(path, value.dump(indent) + "\n");
}

}  // namespace mechinterp
