#ifndef SERVICES_MODEL_ENGINE_TOKENIZER_CHAT_TEMPLATE_H_
#define SERVICES_MODEL_ENGINE_TOKENIZER_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
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

// Llama 3's chat format: <|begin_of_text|>, then per message
// <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>, contents trimmed
// as the published template does; no system message unless given. Ends with the
// opened assistant header. When the last message is the assistant's, it is left
// open (no <|eot_id|>) to be continued. Contents are encoded as plain text.
// Errors: InvalidArgument when there are no messages or a content is empty;
// FailedPrecondition when the tokenizer lacks Llama 3's special tokens.
absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_TOKENIZER_CHAT_TEMPLATE_H_
