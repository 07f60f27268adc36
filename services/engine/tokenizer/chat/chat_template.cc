#include "services/engine/tokenizer/chat/chat_template.h"

#include <array>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/chat/prompt_builder.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

constexpr std::array<std::pair<ChatFormat, std::string_view>, 4> kFormatNames = {{
    {ChatFormat::kNone, "none"},
    {ChatFormat::kLlama3, "llama3"},
    {ChatFormat::kChatMl, "chatml"},
    {ChatFormat::kMistral, "mistral"},
}};

absl::Status LacksToken(ChatFormat format, std::string_view token) {
  return absl::FailedPreconditionError(absl::StrCat("the tokenizer has no special token ", AbslView(token),
                                                    ", which the chat template ",
                                                    AbslView(ChatFormatName(format)), " needs"));
}

absl::StatusOr<TokenId> FindToken(const Tokenizer& tokenizer, ChatFormat format, std::string_view token) {
  const std::optional<TokenId> id = tokenizer.TokenToId(token);
  if (!id.has_value()) return LacksToken(format, token);
  return *id;
}

// Llama 3's tokens are special ones: a tokenizer where they are not is another
// model's, and would let contents forge turns. (ChatML fine-tunes often add
// theirs as plain added tokens.)
absl::StatusOr<TokenId> FindSpecial(const Tokenizer& tokenizer, ChatFormat format, std::string_view token) {
  ABSTRACT_ASSIGN_OR_RETURN(const TokenId id, FindToken(tokenizer, format, token));
  if (!tokenizer.IsSpecial(id)) return LacksToken(format, token);
  return id;
}

std::string_view RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
  }
  return "user";
}

// What Python's str.strip() removes, since that is the template's `trim`.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

std::string_view Trim(std::string_view text) {
  size_t begin = text.size();
  size_t end = text.size();
  for (size_t i = 0; i < text.size();) {
    const Utf8Unit unit = ReadUtf8Unit(text.substr(i));
    const bool space = unit.kind == Utf8Unit::kCharacter && IsPythonSpace(unit.code_point);
    if (!space && begin == text.size()) begin = i;
    i += unit.length;
    if (!space) end = i;
  }
  return text.substr(begin, end - begin);
}

// Contents as the format takes them. Errors: see ApplyChatTemplate.
absl::StatusOr<std::vector<std::string_view>> Contents(ChatFormat format,
                                                       const std::vector<ChatMessage>& messages) {
  if (messages.empty()) return absl::InvalidArgumentError("messages: expected at least one");
  const bool trims = format == ChatFormat::kLlama3;
  std::vector<std::string_view> contents;
  for (const ChatMessage& message : messages) {
    contents.push_back(trims ? Trim(message.content) : std::string_view(message.content));
    if (!contents.back().empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat("messages[", contents.size() - 1, "].content: empty",
                                                   trims ? " (spaces do not count)" : ""));
  }
  return contents;
}

// Whether message i is the assistant's and the last, to be continued.
bool StaysOpen(const std::vector<ChatMessage>& messages, size_t i) {
  return i + 1 == messages.size() && messages[i].role == ChatRole::kAssistant;
}

absl::StatusOr<TemplatedPrompt> ApplyLlama3(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                            const std::vector<ChatMessage>& messages,
                                            const std::vector<std::string_view>& contents) {
  ABSTRACT_ASSIGN_OR_RETURN(const TokenId start_header,
                            FindSpecial(tokenizer, ChatFormat::kLlama3, "<|start_header_id|>"));
  ABSTRACT_ASSIGN_OR_RETURN(const TokenId end_header,
                            FindSpecial(tokenizer, ChatFormat::kLlama3, "<|end_header_id|>"));
  PromptBuilder prompt(tokenizer);
  auto open = [&](ChatRole role) {
    prompt.Token(start_header);
    prompt.Text(RoleName(role));
    prompt.Token(end_header);
    prompt.Text("\n\n");
  };
  if (chat_template.begin_of_text) prompt.Token(*chat_template.begin_of_text);
  for (size_t i = 0; i < messages.size(); ++i) {
    open(messages[i].role);
    prompt.Text(contents[i]);
    if (messages[i].role == ChatRole::kUser) prompt.EndInstruction();
    if (StaysOpen(messages, i)) return std::move(prompt).Finish(false);
    prompt.Token(*chat_template.end_of_turn);
  }
  open(ChatRole::kAssistant);
  return std::move(prompt).Finish(messages.back().role == ChatRole::kUser);
}

absl::StatusOr<TemplatedPrompt> ApplyChatMl(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                            const std::vector<ChatMessage>& messages,
                                            const std::vector<std::string_view>& contents) {
  ABSTRACT_ASSIGN_OR_RETURN(const TokenId start, FindToken(tokenizer, ChatFormat::kChatMl, "<|im_start|>"));
  PromptBuilder prompt(tokenizer);
  auto open = [&](ChatRole role) {
    prompt.Token(start);
    prompt.Text(RoleName(role));
    prompt.Text("\n");
  };
  if (chat_template.begin_of_text) prompt.Token(*chat_template.begin_of_text);
  for (size_t i = 0; i < messages.size(); ++i) {
    open(messages[i].role);
    prompt.Text(contents[i]);
    if (messages[i].role == ChatRole::kUser) prompt.EndInstruction();
    if (StaysOpen(messages, i)) return std::move(prompt).Finish(false);
    prompt.Token(*chat_template.end_of_turn);
    prompt.Text("\n");
  }
  open(ChatRole::kAssistant);
  return std::move(prompt).Finish(messages.back().role == ChatRole::kUser);
}

// After an optional system message: user, assistant, user ...
absl::Status CheckMistralRoles(const std::vector<ChatMessage>& messages, size_t first) {
  if (first == messages.size()) {
    return absl::InvalidArgumentError("messages: the chat template mistral needs a user message");
  }
  for (size_t i = first; i < messages.size(); ++i) {
    const ChatRole expected = (i - first) % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant;
    if (messages[i].role == expected) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "messages[", i, "].role: the chat template mistral expects ", AbslView(RoleName(expected)),
        " here: user and assistant alternate", " after an optional system message"));
  }
  return absl::OkStatus();
}

absl::StatusOr<TemplatedPrompt> ApplyMistral(const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                                             const std::vector<ChatMessage>& messages,
                                             const std::vector<std::string_view>& contents) {
  const bool v1 = chat_template.mistral_spacing == MistralSpacing::kV1;
  const bool tekken = chat_template.mistral_spacing == MistralSpacing::kV3Tekken;
  const size_t first = messages[0].role == ChatRole::kSystem ? 1 : 0;
  ABSTRACT_RETURN_IF_ERROR(CheckMistralRoles(messages, first));
  const size_t last_user = messages.size() - (messages.back().role == ChatRole::kUser ? 1 : 2);
  // Version 1 puts the system message before the first instruction, the later
  // ones before the last.
  const size_t with_system = v1 ? first : last_user;

  PromptBuilder prompt(tokenizer);
  // A token in tokenizers that have it, else text like any other.
  auto mark = [&](std::string_view text) {
    const std::optional<TokenId> id = tokenizer.TokenToId(text);
    id ? prompt.Token(*id) : prompt.Text(text);
  };
  if (chat_template.begin_of_text) prompt.Token(*chat_template.begin_of_text);
  for (size_t i = first; i < messages.size(); ++i) {
    if (messages[i].role == ChatRole::kAssistant) {
      if (!tekken) prompt.Text(" ");
      prompt.Text(contents[i]);
      if (StaysOpen(messages, i)) return std::move(prompt).Finish(false);
      prompt.Token(*chat_template.end_of_turn);
      continue;
    }
    if (v1) prompt.Text(" ");
    mark("[INST]");
    if (!tekken) prompt.Text(" ");
    if (first == 1 && i == with_system) prompt.Text(absl::StrCat(AbslView(contents[0]), "\n\n"));
    prompt.Text(contents[i]);
    prompt.EndInstruction();
    if (v1) prompt.Text(" ");
    mark("[/INST]");
  }
  return std::move(prompt).Finish(true);
}

}  // namespace

std::string_view ChatFormatName(ChatFormat format) {
  for (const auto& [known, name] : kFormatNames) {
    if (known == format) return name;
  }
  return "none";
}

std::optional<ChatFormat> ParseChatFormat(std::string_view name) {
  for (const auto& [format, known] : kFormatNames) {
    if (known == name) return format;
  }
  return std::nullopt;
}

absl::StatusOr<ChatTemplate> MakeChatTemplate(ChatFormat format, const Tokenizer& tokenizer) {
  ChatTemplate result;
  result.format = format;
  switch (format) {
    case ChatFormat::kNone:
      break;
    case ChatFormat::kLlama3: {
      ABSTRACT_ASSIGN_OR_RETURN(result.begin_of_text, FindSpecial(tokenizer, format, "<|begin_of_text|>"));
      ABSTRACT_ASSIGN_OR_RETURN(result.end_of_turn, FindSpecial(tokenizer, format, "<|eot_id|>"));
      // Used by name only; looked for so that their lack shows when loading.
      for (const std::string_view token : {"<|start_header_id|>", "<|end_header_id|>"}) {
        ABSTRACT_RETURN_IF_ERROR(FindSpecial(tokenizer, format, token).status());
      }
      break;
    }
    case ChatFormat::kChatMl: {
      ABSTRACT_RETURN_IF_ERROR(FindToken(tokenizer, format, "<|im_start|>").status());
      ABSTRACT_ASSIGN_OR_RETURN(result.end_of_turn, FindToken(tokenizer, format, "<|im_end|>"));
      break;
    }
    case ChatFormat::kMistral: {
      ABSTRACT_ASSIGN_OR_RETURN(result.begin_of_text, FindSpecial(tokenizer, format, "<s>"));
      ABSTRACT_ASSIGN_OR_RETURN(result.end_of_turn, FindSpecial(tokenizer, format, "</s>"));
      // Only the tokenizers of the first version write [INST] as plain text.
      if (!tokenizer.TokenToId("[INST]")) result.mistral_spacing = MistralSpacing::kV1;
      break;
    }
  }
  return result;
}

absl::StatusOr<TemplatedPrompt> ApplyChatTemplate(const ChatTemplate& chat_template,
                                                  const Tokenizer& tokenizer,
                                                  const std::vector<ChatMessage>& messages) {
  if (!chat_template.end_of_turn) return absl::FailedPreconditionError("there is no chat template");
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<std::string_view> contents,
                            Contents(chat_template.format, messages));
  switch (chat_template.format) {
    case ChatFormat::kLlama3:
      return ApplyLlama3(chat_template, tokenizer, messages, contents);
    case ChatFormat::kChatMl:
      return ApplyChatMl(chat_template, tokenizer, messages, contents);
    case ChatFormat::kMistral:
      return ApplyMistral(chat_template, tokenizer, messages, contents);
    case ChatFormat::kNone:
      break;
  }
  return absl::FailedPreconditionError("the chat template is none");
}

absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages) {
  ABSTRACT_ASSIGN_OR_RETURN(const ChatTemplate chat_template,
                            MakeChatTemplate(ChatFormat::kLlama3, tokenizer));
  return ApplyChatTemplate(chat_template, tokenizer, messages);
}

}  // namespace mechinterp::engine
