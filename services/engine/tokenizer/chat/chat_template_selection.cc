#include "services/engine/tokenizer/chat/chat_template_selection.h"

#include <string>

#include "absl/strings/match.h"
#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

ChatFormat PublishedFormat(const std::string& text) {
  if (absl::StrContains(text, "<|start_header_id|>")) return ChatFormat::kLlama3;
  if (absl::StrContains(text, "<|im_start|>")) return ChatFormat::kChatMl;
  // Llama 2 frames system messages by <<SYS>>, Mistral from its version 7 on by
  // [SYSTEM_PROMPT]; otherwise they look alike.
  if (absl::StrContains(text, "[INST]") && !absl::StrContains(text, "<<SYS>>") &&
      !absl::StrContains(text, "[SYSTEM_PROMPT]")) {
    return ChatFormat::kMistral;
  }
  return ChatFormat::kNone;
}

// Without a published template.
ChatFormat FormatByTokens(const Tokenizer& tokenizer) {
  if (tokenizer.TokenToId("<|start_header_id|>")) return ChatFormat::kLlama3;
  if (tokenizer.TokenToId("<|im_start|>")) return ChatFormat::kChatMl;
  if (tokenizer.TokenToId("[INST]")) return ChatFormat::kMistral;
  return ChatFormat::kNone;
}

MistralSpacing PublishedSpacing(const std::string& text) {
  if (absl::StrContains(text, " [/INST]")) return MistralSpacing::kV1;
  if (absl::StrContains(text, "[INST] ")) return MistralSpacing::kV3;
  return MistralSpacing::kV3Tekken;
}

std::optional<TokenId> ChatMlBeginOfText(const Tokenizer& tokenizer, const TokenizerConfig& config,
                                         bool published) {
  // SmolLM2 calls <|im_start|> its begin-of-text; every turn has that already.
  if (config.begin_of_text.empty() || config.begin_of_text == "<|im_start|>") return std::nullopt;
  if (published && !absl::StrContains(config.chat_template, "bos_token") &&
      !absl::StrContains(config.chat_template, config.begin_of_text)) {
    return std::nullopt;
  }
  return tokenizer.TokenToId(config.begin_of_text);
}

}  // namespace

absl::StatusOr<ChatTemplate> SelectChatTemplate(std::optional<ChatFormat> wanted, const Tokenizer& tokenizer,
                                                const TokenizerConfig& config) {
  const ChatFormat published = PublishedFormat(config.chat_template);
  const ChatFormat format =
      wanted.value_or(config.chat_template.empty() ? FormatByTokens(tokenizer) : published);
  absl::StatusOr<ChatTemplate> selected = MakeChatTemplate(format, tokenizer);
  if (!selected.ok() && !wanted) return ChatTemplate();
  ABSTRACT_RETURN_IF_ERROR(selected.status());
  if (format == ChatFormat::kChatMl) {
    selected->begin_of_text = ChatMlBeginOfText(tokenizer, config, published == format);
  }
  if (format == ChatFormat::kMistral && published == format) {
    selected->mistral_spacing = PublishedSpacing(config.chat_template);
  }
  return selected;
}

}  // namespace mechinterp::engine
