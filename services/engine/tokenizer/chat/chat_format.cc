#include "services/engine/tokenizer/chat/chat_format.h"

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/absl_view.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::engine {
namespace {

// What Python's str.strip() removes, since that is the templates' `trim`.
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

std::string_view TrimStart(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  return trimmed.empty() ? trimmed : text.substr(static_cast<size_t>(trimmed.data() - text.data()));
}

std::string_view TrimEnd(std::string_view text) {
  const std::string_view trimmed = Trim(text);
  return text.substr(0, static_cast<size_t>(trimmed.data() - text.data()) + trimmed.size());
}

std::string_view ContentOf(const ChatMessage& message, const ChatTurn& turn) {
  return turn.trims ? Trim(message.content) : std::string_view(message.content);
}

class Writer {
 public:
  Writer(const ChatFormat& format, const std::vector<ChatMessage>& messages)
      : format_(format), messages_(messages) {}

  absl::StatusOr<WrittenChat> Write() && {
    ABSTRACT_RETURN_IF_ERROR(Check());
    Frame(format_.begin);
    if (!HasSystem() && format_.default_system) {
      Frame(format_.system.before);
      Frame(*format_.default_system);
      Frame(format_.system.after);
    }
    for (size_t i = 0; i < messages_.size(); ++i) WriteMessage(i);
    if (!Continues()) Frame(format_.opening);
    chat_.instruction_is_last = messages_.back().role == ChatRole::kUser;
    return std::move(chat_);
  }

 private:
  bool HasSystem() const { return messages_[0].role == ChatRole::kSystem; }
  bool Continues() const { return messages_.back().role == ChatRole::kAssistant; }

  // The user turn that the system message is in; messages_.size() for none.
  size_t TurnOfSystem() const {
    size_t turn = messages_.size();
    if (!HasSystem() || format_.system_placement == SystemPlacement::kOwnTurn) return turn;
    for (size_t i = messages_.size(); i-- > 0;) {
      if (messages_[i].role != ChatRole::kUser) continue;
      if (turn == messages_.size() || format_.system_placement == SystemPlacement::kFirstUserTurn) turn = i;
    }
    return turn;
  }

  const ChatTurn& TurnOf(size_t i) const {
    if (messages_[i].role == ChatRole::kUser) return format_.user;
    if (messages_[i].role == ChatRole::kAssistant) return format_.assistant;
    return i > 0 && format_.later_system ? *format_.later_system : format_.system;
  }

  absl::Status Check() const {
    if (messages_.empty()) return absl::InvalidArgumentError("messages: expected at least one");
    bool has_user = false;
    for (size_t i = 0; i < messages_.size(); ++i) {
      ABSTRACT_RETURN_IF_ERROR(CheckContent(i));
      ABSTRACT_RETURN_IF_ERROR(CheckRole(i));
      has_user = has_user || messages_[i].role == ChatRole::kUser;
    }
    const bool in_user_turn = HasSystem() && format_.system_placement != SystemPlacement::kOwnTurn;
    if (has_user || !(format_.needs_user || format_.alternates || in_user_turn)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("messages: the chat template ", format_.name, " needs a user message"));
  }

  absl::Status CheckContent(size_t i) const {
    const ChatTurn& turn = TurnOf(i);
    if (ContentOf(messages_[i], turn).empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].content: empty", turn.trims ? " (spaces do not count)" : ""));
    }
    if (!format_.takes_reasoning && messages_[i].role == ChatRole::kAssistant &&
        messages_[i].content.find("</think>") != std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].content: the chat template ",
                                                     format_.name,
                                                     " rewrites reasoning (</think>); leave it out"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckRole(size_t i) const {
    const ChatRole role = messages_[i].role;
    const auto refused = [&](std::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat("messages[", i, "].role: the chat template ", format_.name, AbslView(why)));
    };
    if (role == ChatRole::kSystem && i == 0) {
      if (format_.system_placement == SystemPlacement::kNone) return refused(" has no system messages");
      return absl::OkStatus();
    }
    if (!format_.alternates) {
      if (role != ChatRole::kSystem || format_.later_system) return absl::OkStatus();
      return refused(" takes a system message only as the first");
    }
    const ChatRole expected = (i - (HasSystem() ? 1 : 0)) % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant;
    if (role == expected) return absl::OkStatus();
    return refused(
        absl::StrCat(" expects ", AbslView(RoleName(expected)),
                     " here: user and assistant alternate, after a system message if there is one"));
  }

  void WriteMessage(size_t i) {
    const ChatMessage& message = messages_[i];
    const ChatTurn& turn = TurnOf(i);
    if (message.role == ChatRole::kUser) return WriteUser(i);
    if (i == 0 && message.role == ChatRole::kSystem) {
      if (format_.system_placement == SystemPlacement::kOwnTurn) WriteSystem(ContentOf(message, turn));
      return;
    }
    Frame(turn.before);
    Content(ContentOf(message, turn));
    if (i + 1 < messages_.size() || !Continues()) Frame(turn.after);
  }

  void WriteSystem(std::string_view content) {
    Frame(format_.system.before);
    Content(content);
    Frame(format_.system.after);
  }

  void WriteUser(size_t i) {
    Frame(format_.user.before);
    const size_t begin = chat_.pieces.size();
    if (i == TurnOfSystem()) WriteSystem(ContentOf(messages_[0], format_.system));
    const bool alone = begin == chat_.pieces.size();
    Content(alone ? ContentOf(messages_[i], format_.user) : std::string_view(messages_[i].content));
    if (!alone && format_.user.trims) {
      chat_.pieces[begin].text = TrimStart(chat_.pieces[begin].text);
      chat_.pieces.back().text = TrimEnd(chat_.pieces.back().text);
    }
    chat_.pieces.back().ends_instruction = true;
    Frame(format_.user.after);
  }

  void Frame(std::string_view text) {
    if (!text.empty()) chat_.pieces.push_back({text, false, false});
  }
  void Content(std::string_view text) {
    if (!text.empty()) chat_.pieces.push_back({text, true, false});
  }

  const ChatFormat& format_;
  const std::vector<ChatMessage>& messages_;
  WrittenChat chat_;
};

}  // namespace

std::string WrittenChat::Text() const {
  std::string text;
  for (const ChatPiece& piece : pieces) text.append(piece.text);
  return text;
}

absl::StatusOr<WrittenChat> WriteChat(const ChatFormat& format, const std::vector<ChatMessage>& messages) {
  return Writer(format, messages).Write();
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

}  // namespace mechinterp::engine
