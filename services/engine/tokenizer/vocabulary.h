#ifndef SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_
#define SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Token texts, the bytes they stand for and their ids, both ways; the model's
// tokens and the added ones. Immutable: safe from any thread.
class Vocabulary {
 public:
  // Errors: InvalidArgument naming the tokens that contradict each other.
  static absl::StatusOr<Vocabulary> Create(const TokenizerSpec& spec);

  // Id of the token written so in the file (byte-level alphabet, or an added
  // token's content).
  std::optional<TokenId> Find(std::string_view text) const;
  // Empty for ids that no token has.
  std::string_view Bytes(TokenId id) const;
  bool IsSpecial(TokenId id) const;
  bool IsAdded(TokenId id) const;
  // One past the largest id.
  int size() const { return static_cast<int>(entries_.size()); }

 private:
  struct Entry {
    std::string bytes;
    bool used = false;
    bool special = false;
    bool added = false;
  };

  absl::Status AddModelToken(const std::string& text, TokenId id);
  absl::Status AddAddedToken(const AddedToken& token);
  Entry& Slot(TokenId id);

  absl::flat_hash_map<std::string, TokenId> ids_;
  std::vector<Entry> entries_;  // by id
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_VOCABULARY_H_
