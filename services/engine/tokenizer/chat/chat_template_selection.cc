#include "services/engine/tokenizer/chat/chat_template_selection.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/chat/chat_formats.h"
#include "services/engine/tokenizer/chat/published_templates.h"
#include "services/engine/tokenizer/chat/template_proof.h"

namespace mechinterp::engine {
namespace {

std::string Values() {
  return absl::StrCat("auto, none, mistral, ", ChatFormatNames(), " or a JSON file that states a format");
}

ChatTemplateChoice Refusal(std::string_view why) {
  return {std::nullopt, absl::StrCat(std::string(why), "; --chat-template takes ", Values())};
}

const ChatFormat& Mistral(const Tokenizer& tokenizer) {
  if (!tokenizer.TokenToId("[INST]")) return *FindChatFormat("mistral-v1");
  const bool from_sentencepiece = tokenizer.TokenToId("\u2581the").has_value();
  return *FindChatFormat(from_sentencepiece ? "mistral-v3" : "mistral-v3-tekken");
}

ChatFormat ChatMl(const TokenizerConfig& config) {
  ChatFormat format = *FindChatFormat("chatml");
  // SmolLM2 calls <|im_start|> its begin-of-text; every turn has that already.
  if (config.chat_template.empty() && config.begin_of_text != "<|im_start|>")
    format.begin = config.begin_of_text;
  return format;
}

// Without a published template.
std::optional<ChatFormat> FormatByTokens(const Tokenizer& tokenizer, const TokenizerConfig& config) {
  if (tokenizer.TokenToId("<|start_header_id|>")) return *FindChatFormat("llama3");
  if (tokenizer.TokenToId("<|im_start|>")) return ChatMl(config);
  if (tokenizer.TokenToId("[INST]")) return Mistral(tokenizer);
  return std::nullopt;
}

absl::StatusOr<ChatFormat> PublishedFormat(const TokenizerConfig& config, const JinjaRenderer& renderer) {
  if (const ChatFormat* known = FindPublishedFormat(config)) return *known;
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<Rendering> renderings,
                            renderer.Render(config, ProofConversations()));
  return FindProvenFormat(renderings);
}

ChatTemplateChoice ChooseByCheckpoint(const Tokenizer& tokenizer, const TokenizerConfig& config,
                                      const JinjaRenderer& renderer) {
  absl::StatusOr<ChatFormat> format = absl::NotFoundError("");
  if (config.chat_template.empty() && !config.template_names.empty()) {
    return Refusal(absl::StrCat("none of the checkpoint's chat templates is called \"default\": ",
                                absl::StrJoin(config.template_names, ", ")));
  }
  if (config.chat_template.empty()) {
    std::optional<ChatFormat> by_tokens = FormatByTokens(tokenizer, config);
    if (!by_tokens) return Refusal("the checkpoint publishes no chat template");
    format = *std::move(by_tokens);
  } else {
    format = PublishedFormat(config, renderer);
  }
  absl::StatusOr<ChatTemplate> made = format.ok() ? MakeChatTemplate(*format, tokenizer) : format.status();
  if (made.ok()) return {*std::move(made), ""};
  return Refusal(absl::StrCat("the checkpoint's chat template is not known",
                              absl::IsUnavailable(made.status())
                                  ? " by its fingerprint, and without an engine that renders it ("
                                  : " to be written exactly (",
                              made.status().message(), ")"));
}

absl::StatusOr<ChatFormat> NamedFormat(const std::string& wanted, const Tokenizer& tokenizer,
                                       const TokenizerConfig& config) {
  if (wanted == "chatml") return ChatMl(config);
  if (wanted == "mistral") return Mistral(tokenizer);
  if (const ChatFormat* known = FindChatFormat(wanted)) return *known;
  std::error_code error;
  if (std::filesystem::exists(wanted, error)) return LoadChatFormat(wanted);
  return absl::InvalidArgumentError(
      absl::StrCat("--chat-template ", wanted, ": there is no such file; it takes ", Values()));
}

}  // namespace

absl::StatusOr<ChatTemplateChoice> SelectChatTemplate(const std::string& wanted, const Tokenizer& tokenizer,
                                                      const TokenizerConfig& config,
                                                      const JinjaRenderer& renderer) {
  if (wanted == "none") return Refusal("the server was told --chat-template none");
  if (wanted == "auto") return ChooseByCheckpoint(tokenizer, config, renderer);
  ABSTRACT_ASSIGN_OR_RETURN(const ChatFormat format, NamedFormat(wanted, tokenizer, config));
  ABSTRACT_ASSIGN_OR_RETURN(ChatTemplate made, MakeChatTemplate(format, tokenizer));
  return ChatTemplateChoice{std::move(made), ""};
}

}  // namespace mechinterp::engine
