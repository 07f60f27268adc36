#ifndef SERVICES_ENGINE_TOKENIZER_STREAMING_DETOKENIZER_H_
#define SERVICES_ENGINE_TOKENIZER_STREAMING_DETOKENIZER_H_

#include <memory>
#include <string>

#include "services/engine/tokenizer/decoder.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// Turns a stream of tokens into text that never shows half a character: bytes
// are held back until they complete a UTF-8 sequence, and where bytes have tokens
// of their own (byte fallback) until another token ends their run. All pieces
// together are what Tokenizer::Decode makes of all tokens. One per stream; not
// thread-safe.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = true);
  // The text that became certain with this token; may be empty.
  std::string Push(TokenId id);
  // What is left at the end of the stream.
  std::string Flush();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  Decoder::State state_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_STREAMING_DETOKENIZER_H_
