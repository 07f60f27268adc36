#ifndef SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Text between added tokens, or an added token.
struct TextSegment {
  std::string_view text;
  std::optional<TokenId> added_token;
};

// Finds added tokens in raw text, leftmost and longest first. Immutable: safe
// from any thread.
class AddedTokenSplitter {
 public:
  explicit AddedTokenSplitter(const std::vector<AddedToken>& tokens);

  // Segments of `text`, in order, none empty. With kAsPlainText special tokens and
  // those of `also_plain` stay in the text around them.
  std::vector<TextSegment> Split(std::string_view text, SpecialTokens special,
                                 absl::Span<const TokenId> also_plain) const;

 private:
  class Trie {
   public:
    struct Match {
      size_t length = 0;  // 0: no token starts here
      TokenId id = 0;
      bool special = false;
    };
    void Insert(const AddedToken& token);
    Match LongestMatch(std::string_view text) const;
    bool empty() const { return children_.empty(); }

   private:
    absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node << 8 | byte) -> node
    absl::flat_hash_map<uint32_t, Match> ends_;         // node -> token that ends there
    uint32_t node_count_ = 1;
  };

  static void SplitBy(const Trie& trie, std::string_view text, SpecialTokens special,
                      absl::Span<const TokenId> also_plain, std::vector<TextSegment>* segments);

  // Hugging Face looks for these in the raw text first, and for the
  // `normalized` ones in what is left (which no normalizer changes here).
  Trie raw_;
  Trie normalized_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_
