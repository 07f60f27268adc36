#include "services/model/engine/tokenizer/chat_template.h"

#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/model/engine/tokenizer/absl_view.h"
#include "services/model/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

struct TurnTokens {
  TokenId begin_of_text = 0;
  TokenId start_header = 0;
  TokenId end_header = 0;
  TokenId end_of_turn = 0;
};

absl::StatusOr<TokenId> FindSpecial(const Tokenizer& tokenizer, std::string_view token) {
  const std::optional<TokenId> id = tokenizer.TokenToId(token);
  if (id.has_value() && tokenizer.IsSpecial(*id)) return *id;
  return absl::FailedPreconditionError(absl::StrCat("the tokenizer has no special token ", AbslView(token),
                                                    ", which Llama 3's chat template needs"));
}

absl::StatusOr<TurnTokens> FindTurnTokens(const Tokenizer& tokenizer) {
  const absl::StatusOr<TokenId> begin_of_text = FindSpecial(tokenizer, "<|begin_of_text|>");
  if (!begin_of_text.ok()) return begin_of_text.status();
  const absl::StatusOr<TokenId> start_header = FindSpecial(tokenizer, "<|start_header_id|>");
  if (!start_header.ok()) return start_header.status();
  const absl::StatusOr<TokenId> end_header = FindSpecial(tokenizer, "<|end_header_id|>");
  if (!end_header.ok()) return end_header.status();
  const absl::StatusOr<TokenId> end_of_turn = FindSpecial(tokenizer, "<|eot_id|>");
  if (!end_of_turn.ok()) return end_of_turn.status();
  return TurnTokens{*begin_of_text, *start_header, *end_header, *end_of_turn};
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

void Append(const std::vector<TokenId>& more, std::vector<TokenId>* ids) {
  ids->insert(ids->end(), more.begin(), more.end());
}

// The header, and the content together with the blank line before it: the
// template is a text, so where a token ends there is the tokenizer's choice.
void AppendTurn(const Tokenizer& tokenizer, const TurnTokens& turn, ChatRole role, std::string_view content,
                std::vector<TokenId>* ids) {
  ids->push_back(turn.start_header);
  Append(tokenizer.Encode(RoleName(role), SpecialTokens::kAsPlainText), ids);
  ids->push_back(turn.end_header);
  Append(tokenizer.Encode(absl::StrCat("\n\n", AbslView(content)), SpecialTokens::kAsPlainText), ids);
}

}  // namespace

absl::StatusOr<TemplatedPrompt> ApplyLlama3ChatTemplate(const Tokenizer& tokenizer,
                                                        const std::vector<ChatMessage>& messages) {
  const absl::StatusOr<TurnTokens> turn = FindTurnTokens(tokenizer);
  if (!turn.ok()) return turn.status();
  if (messages.empty()) return absl::InvalidArgumentError("messages: expected at least one");

  TemplatedPrompt prompt;
  prompt.ids.push_back(turn->begin_of_text);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatRole role = messages[i].role;
    const std::string_view content = Trim(messages[i].content);
    if (content.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].content: empty (spaces do not count)"));
    }
    AppendTurn(tokenizer, *turn, role, content, &prompt.ids);
    if (role == ChatRole::kUser) prompt.last_instruction_position = static_cast<int>(prompt.ids.size()) - 1;
    const bool last = i + 1 == messages.size();
    if (last && role == ChatRole::kAssistant) return prompt;
    prompt.ids.push_back(turn->end_of_turn);
  }
  AppendTurn(tokenizer, *turn, ChatRole::kAssistant, "", &prompt.ids);
  if (messages.back().role == ChatRole::kUser) {
    prompt.tail_length = static_cast<int>(prompt.ids.size()) - 1 - prompt.last_instruction_position;
  }
  return prompt;
}

}  // namespace mechinterp::engine
