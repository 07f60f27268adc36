#include "services/engine/tokenizer/chat/chat_template.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/chat/chat_formats.h"
#include "services/engine/tokenizer/chat/prompt_builder.h"

namespace mechinterp::engine {
namespace {

std::vector<TokenId> TokensIn(const Tokenizer& tokenizer, std::string_view frame) {
  std::vector<TokenId> tokens;
  for (const FramePart& part : SplitFrame(tokenizer, frame)) {
    if (part.token) tokens.push_back(*part.token);
  }
  return tokens;
}

std::vector<std::string_view> Frames(const ChatFormat& format) {
  std::vector<std::string_view> frames = {format.begin, format.opening};
  for (const ChatTurn* turn : {&format.system, &format.user, &format.assistant}) {
    frames.insert(frames.end(), {turn->before, turn->after});
  }
  if (format.default_system) frames.push_back(*format.default_system);
  if (format.later_system)
    frames.insert(frames.end(), {format.later_system->before, format.later_system->after});
  return frames;
}

}  // namespace

absl::StatusOr<ChatTemplate> MakeChatTemplate(const ChatFormat& format, const Tokenizer& tokenizer) {
  for (const std::string& token : format.tokens) {
    const std::optional<TokenId> id = tokenizer.TokenToId(token);
    if (id && tokenizer.IsAdded(*id)) continue;
    return absl::FailedPreconditionError(absl::StrCat("the tokenizer has no added token ", token,
                                                      ", which the chat template ", format.name, " needs"));
  }
  ChatTemplate result;
  result.format = format;
  for (const std::string_view frame : Frames(format)) {
    for (const TokenId id : TokensIn(tokenizer, frame)) {
      if (std::find(result.markers.begin(), result.markers.end(), id) == result.markers.end()) {
        result.markers.push_back(id);
      }
    }
  }
  const std::vector<TokenId> closing = TokensIn(tokenizer, format.assistant.after);
  if (!closing.empty()) result.end_of_turn = closing.front();
  return result;
}

absl::StatusOr<TemplatedPrompt> ApplyChatTemplate(const ChatTemplate& chat_template,
                                                  const Tokenizer& tokenizer,
                                                  const std::vector<ChatMessage>& messages) {
  ABSTRACT_ASSIGN_OR_RETURN(const WrittenChat chat, WriteChat(chat_template.format, messages));
  PromptBuilder prompt(tokenizer, chat_template.markers);
  for (const ChatPiece& piece : chat.pieces) {
    if (piece.is_content) {
      prompt.Text(piece.text);
    } else {
      for (const FramePart& part : SplitFrame(tokenizer, piece.text)) {
        part.token ? prompt.Token(*part.token) : prompt.Text(part.text);
      }
    }
    if (piece.ends_instruction) prompt.EndInstruction();
  }
  return std::move(prompt).Finish(chat.instruction_is_last);
}

absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages) {
  ABSTRACT_ASSIGN_OR_RETURN(const ChatTemplate chat_template,
                            MakeChatTemplate(*FindChatFormat("llama3"), tokenizer));
  return ApplyChatTemplate(chat_template, tokenizer, messages);
}

}  // namespace mechinterp::engine
