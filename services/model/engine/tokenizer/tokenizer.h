#ifndef SERVICES_MODEL_ENGINE_TOKENIZER_TOKENIZER_H_
#define SERVICES_MODEL_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace mechinterp::engine {

using TokenId = int32_t;

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
  // byte by byte, so Encode never fails and DecodeBytes(Encode(x)) == x.
  std::vector<TokenId> Encode(std::string_view text, SpecialTokens special = SpecialTokens::kParse) const;

  // Bytes that the tokens stand for; may end inside a UTF-8 character. Ids that
  // are not in the vocabulary stand for nothing.
  std::string DecodeBytes(absl::Span<const TokenId> ids, bool skip_special = false) const;
  // The same as valid UTF-8: each malformed sequence becomes U+FFFD.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special = false) const;

  // Id of a token by its exact text (for special tokens: "<|eot_id|>").
  std::optional<TokenId> TokenToId(std::string_view token) const;
  bool IsSpecial(TokenId id) const;
  // One past the largest id, added tokens included.
  int vocab_size() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Turns a stream of tokens into text that never shows half a character: bytes
// are held back until they complete a UTF-8 sequence. One per stream; not
// thread-safe.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  // The text that became certain with this token; may be empty.
  std::string Push(TokenId id);
  // What is left at the end of the stream, malformed bytes as U+FFFD.
  std::string Flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_TOKENIZER_TOKENIZER_H_
