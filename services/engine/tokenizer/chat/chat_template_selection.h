#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_

#include <optional>

#include "absl/status/statusor.h"
#include "services/engine/tokenizer/chat/chat_template.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "services/engine/tokenizer/tokenizer_config.h"

namespace mechinterp::engine {

// The chat template of a checkpoint.
//
// `wanted` unset: the format that its published template shows by the tokens in
// its text. A published template of another kind (Llama 2's, say) means kNone,
// whatever tokens the tokenizer inherited from the model it was tuned from. With
// no template published, the tokenizer's own tokens decide. Never an error: a
// format whose tokens are missing is kNone.
//
// `wanted` set: that format. Errors: FailedPrecondition naming the token that the
// tokenizer lacks.
//
// Begin-of-text in ChatML and the spaces in Mistral's format follow the published
// template where it is of the same format; without one, ChatML begins with the
// tokenizer's begin-of-text if it has one.
absl::StatusOr<ChatTemplate> SelectChatTemplate(std::optional<ChatFormat> wanted, const Tokenizer& tokenizer,
                                                const TokenizerConfig& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_TEMPLATE_SELECTION_H_
