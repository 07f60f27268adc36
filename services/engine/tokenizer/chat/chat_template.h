#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::engine {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// The chat formats that are known, each as published in the `chat_template` of
// the models' tokenizer_config.json:
//
//   kLlama3   meta-llama/Meta-Llama-3-8B-Instruct
//             <|begin_of_text|>, then per message
//             <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>,
//             contents trimmed. Ends with the opened assistant header. (3.1 and
//             later put a system message with dates first; it is not added, so
//             that a prompt means the same every day: send it as a message.)
//   kChatMl   NousResearch/Hermes-2-Pro-Llama-3-8B, HuggingFaceTB/SmolLM2
//             <|im_start|>role\ncontent<|im_end|>\n per message, nothing trimmed,
//             after begin-of-text where the checkpoint's template has it. Ends
//             with <|im_start|>assistant\n. Default system messages that some
//             templates put first (SmolLM2) are not added.
//   kMistral  [INST]user[/INST]assistant</s> after <s>, nothing trimmed; the spaces
//             in it differ, see MistralSpacing. Roles must alternate, after an
//             optional system message, which becomes part of a user message with
//             a blank line between. Nothing is opened after the last [/INST].
enum class ChatFormat { kNone, kLlama3, kChatMl, kMistral };

// Mistral's formats by their tokenizer's version, as
// docs.mistral.ai/cookbook/concept-deep-dive-tokenization-templates tells them.
enum class MistralSpacing {
  kV1,        // 7B-Instruct v0.1, v0.2: "<s> [INST] user [/INST] assistant</s>"
  kV3,        // 7B-Instruct v0.3: "<s>[INST] user[/INST] assistant</s>"
  kV3Tekken,  // Nemo, Ministral: "<s>[INST]user[/INST]assistant</s>"
};

// A format, and what the checkpoint decides about it; see SelectChatTemplate.
struct ChatTemplate {
  ChatFormat format = ChatFormat::kNone;
  // Opens the prompt, if anything does.
  std::optional<TokenId> begin_of_text;
  // Closes the assistant's messages: generating it ends the answer. Set unless
  // the format is kNone.
  std::optional<TokenId> end_of_turn;
  MistralSpacing mistral_spacing = MistralSpacing::kV3Tekken;
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

// "none", "llama3", "chatml", "mistral".
std::string_view ChatFormatName(ChatFormat format);
std::optional<ChatFormat> ParseChatFormat(std::string_view name);

// The template of that format with the tokens that this tokenizer calls by the
// names above, without begin-of-text for ChatML. Errors: FailedPrecondition when
// the tokenizer lacks one of the format's tokens, which is named.
absl::StatusOr<ChatTemplate> MakeChatTemplate(ChatFormat format, const Tokenizer& tokenizer);

// Renders and encodes messages. A last message of the assistant's is left open
// (its end is not marked) to be continued. Contents are encoded as plain text:
// they cannot forge special tokens. (They can forge what a checkpoint itself
// writes as plain text: [INST] in Mistral's first version.)
// Errors: InvalidArgument when there are no messages, a content is empty (after
// trimming, where the format trims) or the roles are not what the format allows;
// FailedPrecondition when the tokenizer lacks the format's tokens, or for kNone.
absl::StatusOr<TemplatedPrompt> ApplyChatTemplate(const ChatTemplate& chat_template,
                                                  const Tokenizer& tokenizer,
                                                  const std::vector<ChatMessage>& messages);

// The two in one for Llama 3, whose template leaves nothing to the checkpoint.
absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_H_
