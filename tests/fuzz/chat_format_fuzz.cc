// A chat format of one's own, in JSON; after a zero byte the messages of a conversation, each
// after the letter of its role (s, u or a), a zero byte between them.

#include <algorithm>
#include <string>
#include <vector>

#include "services/engine/tokenizer/chat/chat_formats.h"
#include "services/engine/tokenizer/chat/chat_template.h"
#include "services/engine/tokenizer/chat/prompt_builder.h"
#include "services/engine/tokenizer/chat/template_proof.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/tiny_tokenizer.h"

namespace mechinterp::engine {
namespace {

using fuzz::Require;

std::vector<ChatMessage> Messages(std::string_view input) {
  std::vector<ChatMessage> messages;
  while (!input.empty()) {
    const auto [message, rest] = fuzz::CutAt(input, '\0');
    input = rest;
    if (message.empty()) continue;
    const ChatRole role = message[0] == 's'   ? ChatRole::kSystem
                          : message[0] == 'a' ? ChatRole::kAssistant
                                              : ChatRole::kUser;
    messages.push_back({role, std::string(message.substr(1))});
  }
  return messages;
}

// What was read can be written, and is the same when it is read again.
void CheckRewriting(const ChatFormat& format) {
  const std::string text = ChatFormatJson(format);
  const auto again = LoadChatFormat(fuzz::ScratchFile("written.json", text));
  fuzz::RequireOk(again.status(), "what was written can be read");
  Require(ChatFormatJson(*again) == text, "a format comes back");
}

// The markers of a prompt are those that the format writes: no content forges one.
void CheckMarkers(const ChatTemplate& chat, const WrittenChat& written, const TemplatedPrompt& prompt) {
  const Tokenizer& tokenizer = *fuzz::TinyTokenizer();
  std::vector<TokenId> expected;
  for (const ChatPiece& piece : written.pieces) {
    if (piece.is_content) continue;
    for (const FramePart& part : SplitFrame(tokenizer, piece.text)) {
      if (part.token) expected.push_back(*part.token);
    }
  }
  std::vector<TokenId> found;
  for (const TokenId id : prompt.ids) {
    const bool is_marker = std::find(chat.markers.begin(), chat.markers.end(), id) != chat.markers.end();
    if (is_marker || tokenizer.IsSpecial(id)) found.push_back(id);
  }
  Require(found == expected, "a prompt's markers are the format's own");
}

void CheckConversation(const ChatFormat& format, const std::vector<ChatMessage>& messages) {
  const auto written = WriteChat(format, messages);
  if (!written.ok()) return fuzz::RequireRefusal(written.status(), "messages");
  const auto chat = MakeChatTemplate(format, *fuzz::TinyTokenizer());
  if (!chat.ok()) return Require(absl::IsFailedPrecondition(chat.status()), "a token is lacking");
  const auto prompt = ApplyChatTemplate(*chat, *fuzz::TinyTokenizer(), messages);
  fuzz::RequireOk(prompt.status(), "what can be written can be encoded");
  Require(fuzz::TinyTokenizer()->DecodeBytes(prompt->ids) == written->Text(), "a prompt is what is written");
  const int length = static_cast<int>(prompt->ids.size());
  Require(prompt->last_instruction_position >= -1 && prompt->last_instruction_position < length &&
              prompt->tail_length >= 0 && prompt->tail_length <= length,
          "the instruction and the tail lie in the prompt");
  CheckMarkers(*chat, *written, *prompt);
}

// A template that writes what the format does is proven to be a format that writes the same.
void CheckProof(const ChatFormat& format) {
  std::vector<Rendering> renderings;
  for (const Conversation& conversation : ProofConversations()) {
    const auto written = WriteChat(format, conversation.messages);
    renderings.push_back(written.ok() ? Rendering(written->Text()) : Rendering());
  }
  const auto proven = FindProvenFormat(renderings);
  if (!proven.ok()) return fuzz::RequireRefusal(proven.status(), "in the conversation");
  for (size_t i = 0; i < renderings.size(); ++i) {
    const auto written = WriteChat(*proven, ProofConversations()[i].messages);
    if (!written.ok()) continue;
    Require(!renderings[i] || renderings[i] == written->Text(),
            "a proven format writes what the template does");
  }
}

}  // namespace
}  // namespace mechinterp::engine

ABSTRACT_FUZZ_TARGET(chat_format) {
  using namespace mechinterp::engine;
  const auto [file, conversation] = mechinterp::fuzz::CutAt(input, '\0');
  const std::string path = mechinterp::fuzz::ScratchFile("format.json", file);
  const auto format = LoadChatFormat(path);
  if (!format.ok()) return mechinterp::fuzz::RequireRefusal(format.status(), path);
  CheckRewriting(*format);
  CheckConversation(*format, Messages(conversation));
  CheckProof(*format);
}
