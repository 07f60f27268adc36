#ifndef SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_
#define SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/engine/tokenizer/normalizer.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Token texts, as tokenizer.json writes them, and their ids, both ways; the model's
// tokens and the added ones. Immutable: safe from any thread.
class Vocabulary {
 public:
  // Errors: InvalidArgument naming the tokens that contradict each other.
  static absl::StatusOr<Vocabulary> Create(const TokenizerSpec& spec, const Normalizer& normalizer);

  // Id of the token written so in the file (byte-level alphabet, or an added
  // token's content).
  std::optional<TokenId> Find(std::string_view text) const;
  // As the file writes it; null for ids that no token has.
  const std::string* Text(TokenId id) const;
  // What the decoder is given: the same, but for an added token that is looked for in
  // normalized text, in that form, with what a normalizer put in front of it.
  const std::string* DecodedText(TokenId id) const;
  bool IsAdded(TokenId id) const;
  bool IsSpecial(TokenId id) const;
  // One past the largest id.
  int size() const { return static_cast<int>(entries_.size()); }

 private:
  struct Entry {
    std::string text;
    bool used = false;
    bool added = false;
    bool special = false;
  };

  absl::Status AddModelToken(const std::string& text, TokenId id);
  absl::Status AddAddedToken(const AddedToken& token, const Normalizer& normalizer);
  Entry& Slot(TokenId id);

  absl::flat_hash_map<std::string, TokenId> ids_;
  std::vector<Entry> entries_;  // by id
  // Where DecodedText differs from Text.
  absl::flat_hash_map<TokenId, std::string> normalized_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_
