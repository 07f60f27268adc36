#ifndef TESTS_SERVICES_ENGINE_TOKENIZER_SMALL_TOKENIZER_H_
#define TESTS_SERVICES_ENGINE_TOKENIZER_SMALL_TOKENIZER_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// A tokenizer.json small enough to know by heart. Ids 0 to 255 are the bytes;
// merges "a b" and "Ġ ab"; "cab" is a token that no merge makes.
inline constexpr TokenId kAb = 256;
inline constexpr TokenId kSpaceAb = 257;
inline constexpr TokenId kCab = 258;
inline constexpr TokenId kBeginOfText = 260;  // special, as the three after it
inline constexpr TokenId kStartHeader = 261;
inline constexpr TokenId kEndHeader = 262;
inline constexpr TokenId kEndOfTurn = 263;
inline constexpr TokenId kTool = 264;      // "<tool>", added but not special
inline constexpr TokenId kToolCall = 265;  // "<tool>call", likewise
nlohmann::json SmallTokenizerJson();

// Writes the file and loads it.
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizer(const nlohmann::json& tokenizer_json);
absl::StatusOr<std::shared_ptr<const Tokenizer>> LoadTokenizerText(const std::string& tokenizer_json);

// The same, for a file that must be good.
std::shared_ptr<const Tokenizer> SmallTokenizer();

// Each byte's own id, in the small tokenizer.
std::vector<TokenId> ByteIds(const std::string& bytes);

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_TOKENIZER_SMALL_TOKENIZER_H_
