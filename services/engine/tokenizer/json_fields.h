#ifndef SERVICES_ENGINE_TOKENIZER_JSON_FIELDS_H_
#define SERVICES_ENGINE_TOKENIZER_JSON_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// Reads the fields of tokenizer.json; what is wrong is told by the field's path.
// Messages quote no more than a short piece of the file, whatever is in it. Pure
// functions, safe from any thread.

// `text` in quotation marks, escaped, cut where it is long.
std::string Quoted(std::string_view text);
// A number or text as it is, likewise cut; of an array or object that it is one.
std::string QuotedValue(const nlohmann::json& value);

// InvalidArgument: "part: expected ...".
absl::Status Malformed(std::string_view part, std::string_view expected);
// Unimplemented: "part: found is not supported (only ...)".
absl::Status Unsupported(std::string_view part, const nlohmann::json& found, std::string_view supported);

// Null when `object` lacks the key or is no object at all: absent and null mean
// the same thing throughout tokenizer.json.
const nlohmann::json& Member(const nlohmann::json& object, const char* key);
// The `type` of a stage; empty when it has none.
std::string TypeOf(const nlohmann::json& stage);

absl::StatusOr<bool> ReadBool(const nlohmann::json& object, std::string_view path, const char* key,
                              bool if_absent);
absl::StatusOr<std::string> ReadString(const nlohmann::json& object, std::string_view path, const char* key);
// A text of one character, which ` ` may be.
absl::StatusOr<std::string> ReadCharacter(const nlohmann::json& object, std::string_view path,
                                          const char* key);
// Unset unless it is an integer from 0 to the largest id that a vocabulary could have.
std::optional<TokenId> ReadId(const nlohmann::json& value);
absl::Status MalformedId(std::string_view part);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_JSON_FIELDS_H_
