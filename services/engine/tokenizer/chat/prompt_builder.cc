#include "services/engine/tokenizer/chat/prompt_builder.h"

#include <utility>
#include <vector>

namespace mechinterp::engine {

std::vector<FramePart> SplitFrame(const Tokenizer& tokenizer, std::string_view frame) {
  std::vector<FramePart> parts;
  size_t done = 0;
  for (const TokenId id : tokenizer.Encode(frame, SpecialTokens::kParse)) {
    if (!tokenizer.IsAdded(id)) continue;
    const std::string marker = tokenizer.DecodeBytes({id});
    const size_t at = frame.find(marker, done);
    if (at == std::string_view::npos) continue;  // not written as it is found
    if (at > done) parts.push_back({frame.substr(done, at - done), std::nullopt});
    parts.push_back({frame.substr(at, marker.size()), id});
    done = at + marker.size();
  }
  if (done < frame.size()) parts.push_back({frame.substr(done), std::nullopt});
  return parts;
}

void PromptBuilder::Token(TokenId id) {
  Flush();
  prompt_.ids.push_back(id);
}

void PromptBuilder::Text(std::string_view text) { text_.append(text); }

void PromptBuilder::EndInstruction() { instruction_end_ = text_.size(); }

TemplatedPrompt PromptBuilder::Finish(bool instruction_is_last) && {
  Flush();
  if (instruction_is_last) {
    prompt_.tail_length = static_cast<int>(prompt_.ids.size()) - 1 - prompt_.last_instruction_position;
  }
  return std::move(prompt_);
}

void PromptBuilder::Flush() {
  const TextPlace place = prompt_.ids.empty() ? TextPlace::kStart : TextPlace::kAfterToken;
  const auto encode = [&](std::string_view text) {
    return tokenizer_.Encode(text, SpecialTokens::kAsPlainText, markers_, place);
  };
  // The first token that reaches the instruction's end holds its last byte. A
  // normalizer may change lengths, so the end is counted in tokens' bytes.
  size_t end = 0;
  if (instruction_end_) end = tokenizer_.DecodeBytes(encode(text_.substr(0, *instruction_end_))).size();
  size_t bytes = 0;
  for (const TokenId id : encode(text_)) {
    prompt_.ids.push_back(id);
    if (!instruction_end_.has_value()) continue;
    bytes += tokenizer_.DecodeBytes({id}).size();
    if (bytes < end) continue;
    prompt_.last_instruction_position = static_cast<int>(prompt_.ids.size()) - 1;
    instruction_end_.reset();
  }
  text_.clear();
}

}  // namespace mechinterp::engine
