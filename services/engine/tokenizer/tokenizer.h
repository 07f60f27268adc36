#ifndef SERVICES_ENGINE_TOKENIZER_TOKENIZER_H_
#define SERVICES_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/engine/base/token_id.h"

namespace mechinterp::engine {

// How Encode treats the text of special tokens (`<|eot_id|>` ...) in its input.
enum class SpecialTokens {
  kParse,       // becomes the special token's id, as Hugging Face does by default
  kAsPlainText  // stays ordinary text: user input cannot forge a chat turn
};

// A Hugging Face `tokenizer.json` of the byte-level BPE kind that Llama 3 uses:
// added tokens, Split (by a PCRE2 pattern) and Digits pre-tokenizers, byte-level alphabet,
// ranked merges with `ignore_merges`. Immutable: safe from any thread.
class Tokenizer {
 public:
  // Errors: NotFound, or InvalidArgument naming the file and the part of it
  // that is malformed or not supported (another model type, say).
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& tokenizer_json_path);
  ~Tokenizer();

  // Token ids of UTF-8 `text`, without begin-of-text. Invalid UTF-8 is encoded
  // byte by byte, so Encode never fails and DecodeBytes(Encode(x)) == x. With
  // kAsPlainText the added tokens `also_plain` stay text too, special or not.
  std::vector<TokenId> Encode(std::string_view text, SpecialTokens special = SpecialTokens::kParse,
                              absl::Span<const TokenId> also_plain = {}) const;

  // Bytes that the tokens stand for; may end inside a UTF-8 character. Ids that
  // are not in the vocabulary stand for nothing.
  std::string DecodeBytes(absl::Span<const TokenId> ids, bool skip_special = false) const;
  // The same as valid UTF-8: each malformed sequence becomes U+FFFD.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special = false) const;

  // Id of a token by its exact text (for special tokens: "<|eot_id|>").
  std::optional<TokenId> TokenToId(std::string_view token) const;
  bool IsSpecial(TokenId id) const;
  // Whether it is one of the file's added tokens, special or not: found in a text before
  // the text is split and merged.
  bool IsAdded(TokenId id) const;
  // One past the largest id, added tokens included.
  int vocab_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_TOKENIZER_H_
