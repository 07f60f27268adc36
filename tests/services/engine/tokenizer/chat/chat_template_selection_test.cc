#include "services/engine/tokenizer/chat/chat_template_selection.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

// The parts of published templates that matter here; models in the test's names.
constexpr char kLlama3[] =
    "{{ bos_token }}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}";
constexpr char kChatMlWithBegin[] =
    "{{bos_token}}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}";
constexpr char kChatMl[] =
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}";
constexpr char kMistralV1[] = "{{ ' [INST] ' + message['content'] + ' [/INST]' }}";
constexpr char kMistralV3[] = "{{ '[INST] ' + message['content'] + '[/INST]' }}";
constexpr char kTekken[] = "{{ \"[INST]\" + message[\"content\"] + \"[/INST]\" }}";

// A tokenizer with every format's tokens, as that of a model tuned from another.
std::shared_ptr<const Tokenizer> RichTokenizer() {
  auto tokenizer_json = SmallTokenizerJson();
  int id = 300;
  for (const char* token : {"<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]"}) {
    tokenizer_json["added_tokens"].push_back(
        {{"id", id++}, {"content", token}, {"special", true}, {"normalized", false}});
  }
  return *LoadTokenizer(tokenizer_json);
}

ChatTemplate Select(const std::string& text, const std::string& begin_of_text = "") {
  const auto selected = SelectChatTemplate(std::nullopt, *RichTokenizer(), {begin_of_text, text});
  EXPECT_THAT(selected, IsOk());
  return selected.value_or(ChatTemplate());
}

TEST(SelectChatTemplate, FollowsThePublishedTemplate) {
  EXPECT_EQ(Select(kLlama3).format, ChatFormat::kLlama3);
  EXPECT_EQ(Select(kChatMl).format, ChatFormat::kChatMl);
  EXPECT_EQ(Select(kTekken).format, ChatFormat::kMistral);
}

TEST(SelectChatTemplate, SpacesMistralAsPublished) {
  EXPECT_EQ(Select(kMistralV1).mistral_spacing, MistralSpacing::kV1);
  EXPECT_EQ(Select(kMistralV3).mistral_spacing, MistralSpacing::kV3);
  EXPECT_EQ(Select(kTekken).mistral_spacing, MistralSpacing::kV3Tekken);
}

TEST(SelectChatTemplate, BeginsChatMlAsPublished) {
  EXPECT_EQ(Select(kChatMlWithBegin, "<|begin_of_text|>").begin_of_text, kBeginOfText);  // Hermes 2 Pro
  EXPECT_EQ(Select(kChatMl, "<|begin_of_text|>").begin_of_text, std::nullopt);
  EXPECT_EQ(Select(kChatMl, "<|im_start|>").begin_of_text, std::nullopt);  // SmolLM2
}

// A model tuned from Llama 3 to another format still has Llama 3's tokens.
TEST(SelectChatTemplate, TakesNoTemplateForAnUnknownOne) {
  EXPECT_EQ(Select("{{ '<|User|>' + message['content'] + '<|Assistant|>' }}").format, ChatFormat::kNone);
  EXPECT_EQ(Select("{{ '[INST] <<SYS>>\n' + system_message + '\n<</SYS>>\n\n' }}").format, ChatFormat::kNone);
  EXPECT_EQ(Select("[SYSTEM_PROMPT] [/SYSTEM_PROMPT][INST] [/INST]").format, ChatFormat::kNone);
}

TEST(SelectChatTemplate, GoesByTheTokensWhereNoneIsPublished) {
  EXPECT_EQ(SelectChatTemplate(std::nullopt, *SmallTokenizer(), {})->format, ChatFormat::kLlama3);
  auto tokenizer_json = SmallTokenizerJson();
  tokenizer_json["added_tokens"] = {{{"id", 300}, {"content", "<|im_start|>"}, {"special", true}},
                                    {{"id", 301}, {"content", "<|im_end|>"}, {"special", true}},
                                    {{"id", 302}, {"content", "<begin>"}, {"special", true}}};
  const auto chatml = SelectChatTemplate(std::nullopt, **LoadTokenizer(tokenizer_json), {"<begin>", ""});
  EXPECT_EQ(chatml->format, ChatFormat::kChatMl);
  EXPECT_EQ(chatml->begin_of_text, 302);
  tokenizer_json["added_tokens"] = json::array();
  EXPECT_EQ(SelectChatTemplate(std::nullopt, **LoadTokenizer(tokenizer_json), {})->format, ChatFormat::kNone);
}

TEST(SelectChatTemplate, TakesNoneWhenThePublishedOnesTokensAreMissing) {
  EXPECT_EQ(SelectChatTemplate(std::nullopt, *SmallTokenizer(), {"", kChatMl})->format, ChatFormat::kNone);
}

TEST(SelectChatTemplate, TheUsersWordGoesFirst) {
  EXPECT_EQ(SelectChatTemplate(ChatFormat::kChatMl, *RichTokenizer(), {"", kLlama3})->format,
            ChatFormat::kChatMl);
  EXPECT_EQ(SelectChatTemplate(ChatFormat::kNone, *RichTokenizer(), {"", kLlama3})->format,
            ChatFormat::kNone);
  const auto refused = SelectChatTemplate(ChatFormat::kMistral, *SmallTokenizer(), {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), AllOf(HasSubstr("<s>"), HasSubstr("mistral")));
}

class TokenizerConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("abstract-tokenizer-config-" + std::to_string(::getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  void Write(const std::string& file, const std::string& text) { std::ofstream(directory_ / file) << text; }
  absl::StatusOr<TokenizerConfig> Load() { return LoadTokenizerConfig(directory_.string()); }
  fs::path directory_;
};

TEST_F(TokenizerConfigTest, IsOptional) {
  const auto config = Load();
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->chat_template, "");
}

TEST_F(TokenizerConfigTest, ReadsTextsAndObjects) {
  Write("tokenizer_config.json",
        R"({"bos_token": {"content": "<s>", "lstrip": false}, "chat_template": "x"})");
  EXPECT_EQ(Load()->begin_of_text, "<s>");
  EXPECT_EQ(Load()->chat_template, "x");
  Write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": null})");
  EXPECT_EQ(Load()->begin_of_text, "<s>");
  EXPECT_EQ(Load()->chat_template, "");
}

TEST_F(TokenizerConfigTest, TakesTheDefaultOfSeveralTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(Load()->chat_template, "d");
}

TEST_F(TokenizerConfigTest, TheSeparateTemplateFileGoesFirst) {
  Write("tokenizer_config.json", R"({"chat_template": "old"})");
  Write("chat_template.jinja", "new");
  EXPECT_EQ(Load()->chat_template, "new");
}

TEST_F(TokenizerConfigTest, NamesWhatIsMalformed) {
  auto error = [&](const std::string& text) {
    Write("tokenizer_config.json", text);
    const auto config = Load();
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(config.status().message());
  };
  EXPECT_THAT(error("{"), HasSubstr("tokenizer_config.json: not valid JSON at line 1, column 2"));
  EXPECT_THAT(error(R"({"bos_token": 3})"), HasSubstr("'bos_token'"));
  EXPECT_THAT(error(R"({"bos_token": {"content": 3}})"), HasSubstr("'bos_token'"));
  EXPECT_THAT(error(R"({"chat_template": 3})"), HasSubstr("'chat_template'"));
  EXPECT_THAT(error(R"({"chat_template": [{"name": "default"}]})"), HasSubstr("'chat_template'"));
}

}  // namespace
}  // namespace mechinterp::engine
