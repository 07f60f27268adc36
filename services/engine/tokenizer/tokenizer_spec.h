#ifndef SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
#define SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  // Looked for only in the text that the other added tokens leave over.
  bool normalized = false;
};

// What a tokenizer.json says, checked for shape and for support, in the words of
// that file: tokens are written in the byte-level alphabet.
struct TokenizerSpec {
  std::vector<std::pair<std::string, TokenId>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  bool ignore_merges = false;
  std::vector<AddedToken> added_tokens;
  // Applied one after the other, each to the pieces of the one before.
  std::vector<std::string> split_patterns;
};

// Errors: InvalidArgument, naming the part ("model.merges[17]") that is malformed
// or asks for something this tokenizer does not do. What only concerns how HF
// batches or frames token ids (truncation, padding, post_processor) is not read.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view text);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TOKENIZER_SPEC_H_
