#ifndef SERVICES_ENGINE_TOKENIZER_BPE_H_
#define SERVICES_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer_spec.h"

namespace mechinterp::engine {

// Byte pair encoding of one piece of text: starts from its bytes, or from its
// characters where tokens are not of the byte-level kind, and applies the merge of
// lowest rank, leftmost first, until none applies. O(n log n) in the piece's
// length. Immutable: safe from any thread.
class BytePairEncoder {
 public:
  // `special` ids are never what a whole piece becomes by `ignore_merges`. Errors:
  // InvalidArgument naming a merge whose tokens are not in the vocabulary, or an
  // unknown token that is not.
  static absl::StatusOr<BytePairEncoder> Create(const BpeModel& model,
                                                const absl::flat_hash_set<TokenId>& special);

  // Appends the tokens of `piece`, any bytes. A character without a token becomes
  // its bytes' tokens where the model has byte fallback, else the unknown token,
  // else nothing, as in Hugging Face.
  void Encode(std::string_view piece, std::vector<TokenId>* ids) const;

 private:
  static constexpr TokenId kNone = -1;
  struct Merge {
    int32_t rank = 0;
    TokenId result = 0;
  };
  class Start;  // collects the symbols that merging starts from
  class Word;   // one piece while it is being merged
  using ModelIds = absl::flat_hash_map<std::string_view, TokenId>;

  void SetBytes(const BpeModel& model, const ModelIds& ids);
  absl::Status SetMerges(const BpeModel& model, const ModelIds& ids);
  void SetWholePieces(const BpeModel& model, const absl::flat_hash_set<TokenId>& special);
  std::vector<TokenId> StartingSymbols(std::string_view piece) const;
  const Merge* FindMerge(TokenId left, TokenId right) const;

  bool byte_level_ = false;
  bool fuse_unknown_ = false;
  TokenId unknown_ = kNone;
  // Of the byte-level kind: each byte's token, or kNone. Else the tokens that
  // bytes fall back to: all kNone where the model has no byte fallback.
  std::array<TokenId, 256> byte_tokens_{};
  absl::flat_hash_map<std::string, TokenId> characters_;  // empty for the byte-level kind
  absl::flat_hash_map<uint64_t, Merge> merges_;           // by PairKey
  // Whole pieces that are tokens: filled only where `ignore_merges` says that such
  // a piece is taken as it is.
  absl::flat_hash_map<std::string, TokenId> whole_pieces_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_BPE_H_
