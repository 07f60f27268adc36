#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/chat/chat_format.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

// A format in the tokens of one tokenizer.
struct ChatTemplate {
  ChatFormat format;
  // The added tokens that the format writes, special or not. No content becomes one.
  std::vector<TokenId> markers;
  // The first of them that closes the assistant's messages: generating it ends the
  // answer. Unset where text closes them.
  std::optional<TokenId> end_of_turn;
};

// A templated prompt, and where in it the instruction ends: harmfulness is read
// at the last instruction token, refusal decided in the template's tail.
struct TemplatedPrompt {
  std::vector<TokenId> ids;
  // Index of the last token of the last user message's content.
  int last_instruction_position = -1;
  // Tokens after it (for Llama 3: <|eot_id|> <|start_header_id|> assistant
  // <|end_header_id|> \n\n); 0 when there is no user message at the end.
  int tail_length = 0;
};

// Errors: FailedPrecondition when the tokenizer lacks one of the format's tokens, which
// is named.
absl::StatusOr<ChatTemplate> MakeChatTemplate(const ChatFormat& format, const Tokenizer& tokenizer);

// Writes and encodes messages. Contents are encoded as plain text: no special token and
// no marker of the template comes of them. (They can forge what a checkpoint itself
// writes as plain text: [INST] in Llama 2 and Mistral's first version.)
// Errors: see WriteChat.
absl::StatusOr<TemplatedPrompt> ApplyChatTemplate(const ChatTemplate& chat_template,
                                                  const Tokenizer& tokenizer,
                                                  const std::vector<ChatMessage>& messages);

// The two in one for the format llama3.
absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_
