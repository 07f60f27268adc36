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

class Decoder;

// How Encode treats the text of special tokens (`<|eot_id|>` ...) in its input.
enum class SpecialTokens {
  kParse,       // becomes the special token's id, as Hugging Face does by default
  kAsPlainText  // stays ordinary text: user input cannot forge a chat turn
};

// Whether the text that is encoded begins the sequence: a normalizer or
// pre-tokenizer may put a space in front of it there.
enum class TextPlace { kStart, kAfterToken };

// A Hugging Face `tokenizer.json` with a model of byte pair encoding, byte-level
// (Llama 3, Qwen, Mistral's Tekken) or derived from SentencePiece (Llama 2,
// Mistral), encoded and decoded as Hugging Face's tokenizers does. Understood are:
//   normalizer      Prepend, Replace, Strip, NFC, NFD, NFKC, NFKD
//   pre_tokenizer   Split, Digits, Metaspace, ByteLevel
//   model           BPE with byte_fallback, unk_token, fuse_unk, ignore_merges
//   decoder         ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace
//   post_processor  TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel
// and a Sequence of each. Patterns are read by PCRE2. Immutable: safe from any thread.
class Tokenizer {
 public:
  // Errors name the file: NotFound, InvalidArgument (the part that is malformed, or
  // no regular file), Unimplemented (the part that is not supported).
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& tokenizer_json_path);
  ~Tokenizer();

  // Token ids of UTF-8 `text`, without those that stand around a whole text. Never
  // fails: what is malformed becomes the tokens of its bytes where there are any. With
  // kAsPlainText the added tokens `also_plain` stay text too, special or not.
  std::vector<TokenId> Encode(std::string_view text, SpecialTokens special = SpecialTokens::kParse,
                              absl::Span<const TokenId> also_plain = {},
                              TextPlace place = TextPlace::kStart) const;
  // What the post-processor puts before a text (begin-of-text), and after it. Not all
  // that is said about it: text_frame.h.
  const std::vector<TokenId>& tokens_before() const;
  const std::vector<TokenId>& tokens_after() const;

  // The text of a sequence, valid UTF-8: a malformed one has U+FFFD. Ids that are
  // not in the vocabulary stand for nothing.
  std::string Decode(absl::Span<const TokenId> ids, bool skip_special = false) const;
  // The bytes that each token stands for amid others, one after the other: with the
  // space that Decode takes from a sequence's start, and perhaps half a character at
  // either end. For byte-level tokenizers that normalize nothing, those of the text
  // that was encoded, whatever they are, less those that have no token (21 of SmolLM2's).
  std::string DecodeBytes(absl::Span<const TokenId> ids, bool skip_special = false) const;

  // DecodeBytes of one token as valid UTF-8: to show it by itself.
  std::string TokenText(TokenId id) const;
  // What the decoder is given for a token, null for an id that is not in the vocabulary.
  const std::string* RawToken(TokenId id) const;
  const Decoder& decoder() const;

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
