#ifndef SERVICES_ENGINE_TOKENIZER_BPE_H_
#define SERVICES_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer_spec.h"
#include "services/engine/tokenizer/vocabulary.h"

namespace mechinterp::engine {

// Byte pair encoding of one piece of text: starts from its bytes and applies the
// merge of lowest rank, leftmost first, until none applies. O(n log n) in the
// piece's length. Immutable: safe from any thread.
class BytePairEncoder {
 public:
  // Errors: InvalidArgument naming a merge whose tokens are not in the
  // vocabulary, or a byte without a token (then some text could not be encoded).
  static absl::StatusOr<BytePairEncoder> Create(const TokenizerSpec& spec, const Vocabulary& vocabulary);

  // Appends the tokens of `piece`, any bytes.
  void Encode(std::string_view piece, std::vector<TokenId>* ids) const;
  TokenId ByteToken(uint8_t byte) const { return byte_tokens_[byte]; }

 private:
  struct Merge {
    int32_t rank = 0;
    TokenId result = 0;
  };
  class Word;  // one piece while it is being merged

  const Merge* FindMerge(TokenId left, TokenId right) const;

  std::array<TokenId, 256> byte_tokens_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by PairKey
  // Bytes of whole pieces that are tokens: filled only where `ignore_merges`
  // says that such a piece is taken as it is.
  absl::flat_hash_map<std::string, TokenId> whole_pieces_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_BPE_H_
