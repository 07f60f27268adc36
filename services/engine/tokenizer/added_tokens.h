#ifndef SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "services/engine/tokenizer/normalizer.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Text between added tokens, or an added token.
struct TextSegment {
  std::string_view text;
  std::optional<TokenId> added_token;
};

// Finds added tokens, leftmost and longest first. Hugging Face looks for most of
// them in the raw text, and for those that are `normalized` in what the normalizer
// makes of the rest. Immutable: safe from any thread.
class AddedTokenSplitter {
 public:
  AddedTokenSplitter(const std::vector<AddedToken>& tokens, const Normalizer& normalizer);

  // Segments of a text, in order, none empty. With kAsPlainText special tokens and
  // those of `also_plain` stay in the text around them.
  std::vector<TextSegment> SplitRaw(std::string_view text, SpecialTokens special,
                                    absl::Span<const TokenId> also_plain) const;
  std::vector<TextSegment> SplitNormalized(std::string_view text, SpecialTokens special,
                                           absl::Span<const TokenId> also_plain) const;

 private:
  class Trie {
   public:
    struct Match {
      size_t length = 0;  // 0: no token starts here
      size_t token = 0;   // index in tokens_
    };
    void Insert(std::string_view text, size_t token);
    Match LongestMatch(std::string_view text) const;
    bool empty() const { return children_.empty(); }

   private:
    absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node << 8 | byte) -> node
    absl::flat_hash_map<uint32_t, Match> ends_;         // node -> token that ends there
    uint32_t node_count_ = 1;
  };

  std::vector<TextSegment> SplitBy(const Trie& trie, std::string_view text, SpecialTokens special,
                                   absl::Span<const TokenId> also_plain) const;

  std::vector<AddedToken> tokens_;
  Trie raw_;
  Trie normalized_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_ADDED_TOKENS_H_
