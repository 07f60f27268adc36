#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp::engine {

// A stretch of a format's own text: an added token of the tokenizer, or what is between.
struct FramePart {
  std::string_view text;
  std::optional<TokenId> token;
};

// As the tokenizer finds them where nothing is plain text.
std::vector<FramePart> SplitFrame(const Tokenizer& tokenizer, std::string_view frame);

// Puts a templated prompt together from tokens and text. Text between two tokens
// is encoded in one go, because a template is a text: where a token ends in it is
// the tokenizer's choice. Not thread-safe; the tokenizer must outlive it.
class PromptBuilder {
 public:
  // `markers`: tokens that no text becomes, besides the special ones.
  PromptBuilder(const Tokenizer& tokenizer, const std::vector<TokenId>& markers)
      : tokenizer_(tokenizer), markers_(markers) {}

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
  const std::vector<TokenId>& markers_;
  TemplatedPrompt prompt_;
  std::string text_;                       // not encoded yet
  std::optional<size_t> instruction_end_;  // offset in text_
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_PROMPT_BUILDER_H_
