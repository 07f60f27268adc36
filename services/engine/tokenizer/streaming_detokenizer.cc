#include "services/engine/tokenizer/streaming_detokenizer.h"

#include <utility>

namespace mechinterp::engine {

StreamingDetokenizer::StreamingDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamingDetokenizer::Push(TokenId id) {
  const std::string* token = tokenizer_->RawToken(id);
  if (token == nullptr || (skip_special_ && tokenizer_->IsSpecial(id))) return {};
  return tokenizer_->decoder().Push(*token, &state_);
}

std::string StreamingDetokenizer::Flush() { return tokenizer_->decoder().Flush(&state_); }

}  // namespace mechinterp::engine
