#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp::engine {

// Puts a templated prompt together from tokens and text. Text between two tokens
// is encoded in one go, because a template is a text: where a token ends in it is
// the tokenizer's choice. Not thread-safe; the tokenizer must outlive it.
class PromptBuilder {
 public:
  explicit PromptBuilder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void Token(TokenId id);
  // Encoded as plain text.
  void Text(std::string_view text);
  // The text so far ends with the content of a user message, which is not empty.
  // The last call counts.
  void EndInstruction();
  // `instruction_is_last`: no other message follows the last instruction.
  TemplatedPrompt Finish(bool instruction_is_last) &&;

 private:
  void Flush();

  const Tokenizer& tokenizer_;
  TemplatedPrompt prompt_;
  std::string text_;                       // not encoded yet
  std::optional<size_t> instruction_end_;  // offset in text_
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_
