#include "services/engine/tokenizer/streaming_detokenizer.h"

#include <utility>

#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {

StreamingDetokenizer::StreamingDetokenizer(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string StreamingDetokenizer::Push(TokenId id) {
  pending_ += tokenizer_->DecodeBytes({id}, skip_special_);
  std::string text;
  const size_t truncated = AppendWellFormed(pending_, &text);
  pending_.erase(0, pending_.size() - truncated);
  return text;
}

std::string StreamingDetokenizer::Flush() {
  // What is pending is always the beginning of one character.
  const bool truncated = !std::exchange(pending_, {}).empty();
  return truncated ? std::string(kReplacementCharacter) : std::string();
}

}  // namespace mechinterp::engine
