#include "services/engine/tokenizer/chat/chat_formats.h"

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/json_file.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<ChatMessage> Messages(const json& list) {
  std::vector<ChatMessage> messages;
  for (const json& message : list) {
    const std::string role = message.at("role");
    messages.push_back({role == "system" ? ChatRole::kSystem
                        : role == "user" ? ChatRole::kUser
                                         : ChatRole::kAssistant,
                        message.at("content")});
  }
  return messages;
}

// Each format against what jinja2 renders of the template that it is named after.
TEST(KnownChatFormats, WriteWhatThePublishedTemplatesDo) {
  const auto document = ReadJsonFile(ABSTRACT_SOURCE_DIR "/tests/testdata/chat-formats.json");
  ASSERT_THAT(document, IsOk());
  std::map<std::string, int> written;
  for (const json& one : document->at("cases")) {
    const std::string name = one.at("format");
    const ChatFormat* format = FindChatFormat(name);
    ASSERT_NE(format, nullptr) << name;
    const std::vector<ChatMessage> messages = Messages(one.at("messages"));
    const auto chat = WriteChat(*format, messages);
    if (!chat.ok()) continue;
    ++written[name];
    EXPECT_EQ(json(chat->Text()), one.at("rendered")) << name << " " << one.at("messages");
  }
  EXPECT_EQ(written.size(), KnownChatFormats().size());
  for (const auto& [name, count] : written) EXPECT_GE(count, 8) << name;
}

TEST(KnownChatFormats, AreFoundByTheirNames) {
  for (const ChatFormat& format : KnownChatFormats()) {
    EXPECT_EQ(FindChatFormat(format.name), &format);
    EXPECT_THAT(ChatFormatNames(), HasSubstr(format.name));
  }
  EXPECT_EQ(FindChatFormat("alpaca"), nullptr);
}

TEST(WriteChat, RefusesWhatTheFormatDoesNotTake) {
  const auto error = [](const char* format, const std::vector<ChatMessage>& messages) {
    const auto chat = WriteChat(*FindChatFormat(format), messages);
    EXPECT_EQ(chat.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(chat.status().message());
  };
  const ChatMessage user = {ChatRole::kUser, "x"}, answer = {ChatRole::kAssistant, "y"},
                    system = {ChatRole::kSystem, "z"};
  EXPECT_THAT(error("llama3", {}), HasSubstr("at least one"));
  EXPECT_THAT(error("llama3", {user, {ChatRole::kUser, "\u3000\n"}}),
              HasSubstr("messages[1].content: empty (spaces"));
  EXPECT_THAT(error("chatml", {{ChatRole::kUser, ""}}), HasSubstr("messages[0].content: empty"));
  EXPECT_THAT(error("llama2", {user, user}),
              AllOf(HasSubstr("messages[1].role"), HasSubstr("expects assistant")));
  EXPECT_THAT(error("llama2", {system}), HasSubstr("needs a user message"));
  EXPECT_THAT(error("deepseek-r1", {user, system, user}), HasSubstr("only as the first"));
  EXPECT_THAT(error("qwen3", {user, {ChatRole::kAssistant, "<think>a</think>b"}, user}),
              HasSubstr("</think>"));
  ChatFormat format = *FindChatFormat("chatml");
  format.system_placement = SystemPlacement::kNone;
  EXPECT_THAT(std::string(WriteChat(format, {system, user}).status().message()),
              HasSubstr("no system messages"));
}

TEST(WriteChat, LeavesALastAnswerOpen) {
  EXPECT_EQ(
      WriteChat(*FindChatFormat("llama2"), {{ChatRole::kUser, "x"}, {ChatRole::kAssistant, " y"}})->Text(),
      "<s>[INST] x [/INST] y");
}

class ChatFormatFile : public testing::Test {
 protected:
  void TearDown() override { std::remove(path_.c_str()); }
  absl::StatusOr<ChatFormat> Load(const std::string& text) {
    std::ofstream(path_) << text;
    return LoadChatFormat(path_);
  }
  std::string path_ = testing::TempDir() + "house-format-" + std::to_string(getpid()) + ".json";
};

TEST_F(ChatFormatFile, StatesAFormat) {
  const auto format = Load(R"({
    "begin": "<s>", "opening": "A:", "tokens": ["<s>"],
    "system": {"before": "(", "after": ")\n", "trim": true},
    "user": {"before": "Q: ", "after": "\n"}, "assistant": {"before": "A: ", "after": "</s>\n"},
    "default_system": "Be kind.", "later_system": {"before": "[", "after": "]"}})");
  ASSERT_THAT(format, IsOk());
  EXPECT_THAT(format->name, HasSubstr("house-format"));
  EXPECT_EQ(WriteChat(*format, {{ChatRole::kUser, " x"}})->Text(), "<s>(Be kind.)\nQ:  x\nA:");
  EXPECT_EQ(WriteChat(*format, {{ChatRole::kSystem, " s "},
                                {ChatRole::kUser, "x"},
                                {ChatRole::kAssistant, "y"},
                                {ChatRole::kSystem, "t"},
                                {ChatRole::kUser, "z"}})
                ->Text(),
            "<s>(s)\nQ: x\nA: y</s>\n[t]Q: z\nA:");
}

TEST_F(ChatFormatFile, OfEveryKnownFormatWritesTheSame) {
  const auto document = ReadJsonFile(ABSTRACT_SOURCE_DIR "/tests/testdata/chat-formats.json");
  ASSERT_THAT(document, IsOk());
  for (const ChatFormat& known : KnownChatFormats()) {
    const auto read = Load(ChatFormatJson(known));
    ASSERT_THAT(read, IsOk()) << known.name;
    EXPECT_EQ(read->tokens, known.tokens);
    for (const json& one : document->at("cases")) {
      const std::vector<ChatMessage> messages = Messages(one.at("messages"));
      const auto ours = WriteChat(known, messages), theirs = WriteChat(*read, messages);
      ASSERT_EQ(ours.ok(), theirs.ok()) << known.name << " " << one;
      if (ours.ok()) {
        EXPECT_EQ(ours->Text(), theirs->Text()) << known.name;
      }
    }
  }
}

TEST_F(ChatFormatFile, PutsTheSystemMessageWhereItSays) {
  const auto format =
      Load(R"({"user": {"before": "[", "after": "]"}, "assistant": {}, "system": {"after": "/"},
                               "system_placement": "last_user_turn", "alternates": true})");
  ASSERT_THAT(format, IsOk());
  EXPECT_EQ(WriteChat(*format, {{ChatRole::kSystem, "s"},
                                {ChatRole::kUser, "x"},
                                {ChatRole::kAssistant, "y"},
                                {ChatRole::kUser, "z"}})
                ->Text(),
            "[x]y[s/z]");
}

TEST_F(ChatFormatFile, NamesWhatIsMalformed) {
  const auto error = [&](const std::string& text) {
    const auto format = Load(text);
    EXPECT_EQ(format.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(format.status().message()), HasSubstr(path_));
    return std::string(format.status().message());
  };
  EXPECT_THAT(error("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(error(R"({"user": {}})"), HasSubstr("'assistant' is missing"));
  EXPECT_THAT(error(R"({"user": {}, "assistant": {"befor": "x"}})"), HasSubstr("'assistant.befor'"));
  EXPECT_THAT(error(R"({"user": {"trim": 1}, "assistant": {}})"),
              HasSubstr("'user.trim' must be true or false"));
  EXPECT_THAT(error(R"({"user": 3, "assistant": {}})"), HasSubstr("'user' must be an object"));
  EXPECT_THAT(error(R"({"begin": null, "user": {}, "assistant": {}})"), HasSubstr("'begin' must be a text"));
  EXPECT_THAT(error(R"({"tokens": "x", "user": {}, "assistant": {}})"), HasSubstr("'tokens' must be a list"));
  EXPECT_THAT(error(R"({"system_placement": "top", "user": {}, "assistant": {}})"), HasSubstr("own_turn"));
  EXPECT_THAT(error(R"({"template": "x", "user": {}, "assistant": {}})"), HasSubstr("'template' is no part"));
  EXPECT_THAT(error(R"({"default_system": "x", "system_placement": "none", "user": {}, "assistant": {}})"),
              HasSubstr("'default_system' needs"));
  EXPECT_THAT(error(R"({"later_system": {}, "alternates": true, "user": {}, "assistant": {}})"),
              HasSubstr("'later_system' contradicts"));
  EXPECT_TRUE(absl::IsNotFound(LoadChatFormat("/nowhere/format.json").status()));
}

}  // namespace
}  // namespace mechinterp::engine
