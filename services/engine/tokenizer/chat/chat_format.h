#ifndef SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMAT_H_
#define SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMAT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace mechinterp::engine {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// What stands around a message's content.
struct ChatTurn {
  std::string before;
  std::string after;
  bool trims = false;  // white space (Python's) at both ends of the content is left out
};

// Where the system message goes that a conversation may begin with.
enum class SystemPlacement { kOwnTurn, kFirstUserTurn, kLastUserTurn, kNone };

// A chat template as data: what is written for a conversation is `begin`, the turns of
// its messages, and `opening`. A plain value.
struct ChatFormat {
  std::string name;
  std::string begin;
  // Within a user turn the system turn stands before the content, and what they make
  // together is trimmed as a user's content.
  ChatTurn system;
  ChatTurn user;
  ChatTurn assistant;
  // Of the answer. Not written after an assistant's last message, which is left open
  // (without `after`) to be continued.
  std::string opening;
  SystemPlacement system_placement = SystemPlacement::kOwnTurn;
  // Written as a system message, in a turn of its own, where there is none.
  std::optional<std::string> default_system;
  // Of system messages that are not the first message; unset: they are refused.
  std::optional<ChatTurn> later_system;
  // User and assistant take turns, the user first.
  bool alternates = false;
  bool needs_user = false;
  // False: the published template rewrites an assistant's content that holds
  // "</think>", so such a content is refused.
  bool takes_reasoning = true;
  // The markers in it that must be added tokens of the tokenizer.
  std::vector<std::string> tokens;
};

// A stretch of a written conversation.
struct ChatPiece {
  std::string_view text;
  bool is_content = false;        // of a message; else the format's own
  bool ends_instruction = false;  // ends with the content of a user message
};

struct WrittenChat {
  std::vector<ChatPiece> pieces;     // views of the format's and the messages' texts
  bool instruction_is_last = false;  // no other message follows the last user message

  std::string Text() const;
};

// Errors: InvalidArgument when there are no messages, a content is empty (after
// trimming, where the format trims), or roles or contents are not what the format takes.
// Both arguments must outlive the result.
absl::StatusOr<WrittenChat> WriteChat(const ChatFormat& format, const std::vector<ChatMessage>& messages);

// "system", "user", "assistant".
std::string_view RoleName(ChatRole role);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_TOKENIZER_CHAT_CHAT_FORMAT_H_
