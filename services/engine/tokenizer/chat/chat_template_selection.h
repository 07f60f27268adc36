#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/chat/chat_template.h"
#include "services/engine/tokenizer/chat/jinja_renderer.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

struct ChatTemplateChoice {
  std::optional<ChatTemplate> chat_template;
  // Why there is none, and what can be done about it; else empty.
  std::string refusal;
};

// The chat template of a checkpoint, by the value of --chat-template:
//
//   auto     the format that its published template is proven to be, by its fingerprint
//            or by what it writes (see FindProvenFormat); none where neither proves one.
//            Where no template is published the tokenizer's own tokens decide: llama3,
//            chatml (after its begin-of-text) or mistral. Never an error.
//   none     none
//   mistral  mistral-v1 for a tokenizer without [INST], mistral-v3 for one derived from
//            SentencePiece, mistral-v3-tekken for others
//   a name   that of KnownChatFormats
//   a path   of a JSON file, see LoadChatFormat
//
// Errors: FailedPrecondition naming the token that the tokenizer lacks; InvalidArgument
// for another value, or LoadChatFormat's.
absl::StatusOr<ChatTemplateChoice> SelectChatTemplate(const std::string& wanted, const Tokenizer& tokenizer,
                                                      const TokenizerConfig& config,
                                                      const JinjaRenderer& renderer = JinjaRenderer());

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_
