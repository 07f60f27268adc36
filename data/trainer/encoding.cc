#include "data/trainer/encoding.h"

#include "services/common/status_macros.h"
#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp::trainer {

absl::StatusOr<EncodedConversation> EncodeConversation(const engine::Tokenizer& tokenizer,
                                                       const Conversation& conversation) {
  std::vector<engine::ChatMessage> messages;
  if (!conversation.system.empty()) messages.push_back({engine::ChatRole::kSystem, conversation.system});
  messages.push_back({engine::ChatRole::kUser, conversation.user});
  ABSTRACT_ASSIGN_OR_RETURN(const engine::TemplatedPrompt prompt,
                            engine::ApplyLlama3ChatTemplate(tokenizer, messages));
  EncodedConversation encoded;
  encoded.ids.assign(prompt.ids.begin(), prompt.ids.end());
  encoded.response_start = static_cast<int64_t>(encoded.ids.size());
  for (engine::TokenId id : tokenizer.Encode(conversation.assistant + "<|eot_id|>")) {
    encoded.ids.push_back(id);
  }
  return encoded;
}

absl::StatusOr<EncodedPrompt> EncodePrompt(const engine::Tokenizer& tokenizer, const std::string& prompt) {
  ABSTRACT_ASSIGN_OR_RETURN(const engine::TemplatedPrompt templated,
                            engine::ApplyLlama3ChatTemplate(tokenizer, {{engine::ChatRole::kUser, prompt}}));
  return EncodedPrompt{{templated.ids.begin(), templated.ids.end()}, templated.tail_length};
}

}  // namespace mechinterp::trainer
