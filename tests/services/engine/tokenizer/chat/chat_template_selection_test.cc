#include "services/engine/tokenizer/chat/chat_template_selection.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/json_file.h"
#include "services/engine/tokenizer/chat/chat_formats.h"
#include "services/engine/tokenizer/chat/published_templates.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

json TestData(const std::string& name) {
  const auto document = ReadJsonFile(std::string(ABSTRACT_SOURCE_DIR) + "/tests/testdata/" + name);
  EXPECT_THAT(document, IsOk());
  return *document;
}

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

// A tokenizer with every format's tokens, as that of a model tuned from another.
std::shared_ptr<const Tokenizer> RichTokenizer() {
  auto tokenizer_json = SmallTokenizerJson();
  int id = 300;
  for (const char* token :
       {"<|im_start|>", "<|im_end|>", "<s>", "</s>", "[INST]", "[/INST]", "<|end_of_text|>"}) {
    tokenizer_json["added_tokens"].push_back(
        {{"id", id++}, {"content", token}, {"special", true}, {"normalized", false}});
  }
  return *LoadTokenizer(tokenizer_json);
}

TokenizerConfig Publishing(const std::string& chat_template) {
  TokenizerConfig config;
  config.begin_of_text = "<|begin_of_text|>";
  config.special_tokens = {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|end_of_text|>"}};
  config.chat_template = chat_template;
  return config;
}

ChatTemplateChoice Select(const TokenizerConfig& config, const JinjaRenderer& renderer = JinjaRenderer()) {
  const auto choice = SelectChatTemplate("auto", *RichTokenizer(), config, renderer);
  EXPECT_THAT(choice, IsOk());
  return choice.value_or(ChatTemplateChoice());
}

// The embedded model's, which is Llama 3's as published.
TokenizerConfig Embedded() {
  return *LoadTokenizerConfig(std::string(ABSTRACT_SOURCE_DIR) + "/data/models/tiny-llama-refusal");
}

const JinjaRenderer& NoPython() {
  static const auto& renderer = *new JinjaRenderer("no-such-python");
  return renderer;
}

bool HasJinja() { return !absl::IsUnavailable(JinjaRenderer().Render(Publishing("x"), {}).status()); }

class WithJinja : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasJinja()) GTEST_SKIP() << "python3 with jinja2 is not installed";
  }
};

// Every conversation is written exactly, or refused; by no template that cannot be.
TEST_F(WithJinja, TemplatesAreServedExactlyOrNotAtAll) {
  const auto tokenizer = RichTokenizer();
  for (const json& one : TestData("chat-templates.json").at("templates")) {
    SCOPED_TRACE(one.at("name").get<std::string>());
    const ChatTemplateChoice choice = Select(Publishing(one.at("chat_template")));
    ASSERT_EQ(choice.chat_template.has_value(), one.at("served").get<bool>()) << choice.refusal;
    if (!choice.chat_template) {
      EXPECT_THAT(choice.refusal, AllOf(HasSubstr("--chat-template takes"), HasSubstr("llama3.1")));
      continue;
    }
    int written = 0;
    for (const json& one_case : one.at("cases")) {
      const auto prompt =
          ApplyChatTemplate(*choice.chat_template, *tokenizer, Messages(one_case.at("messages")));
      if (!prompt.ok()) continue;
      ++written;
      EXPECT_EQ(json(tokenizer->DecodeBytes(prompt->ids)), one_case.at("rendered"));
    }
    EXPECT_GE(written, 2);
    EXPECT_TRUE(ApplyChatTemplate(*choice.chat_template, *tokenizer, {{ChatRole::kUser, "Hello."}}).ok());
  }
}

TEST_F(WithJinja, SaysInWhichConversationATemplateDiffers) {
  EXPECT_THAT(
      Select(
          Publishing("{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] | replace('\n', ' ') + "
                     "'</s>' }}{% endfor %}{{ '<assistant>' }}"))
          .refusal,
      AllOf(HasSubstr("in the conversation: user"), HasSubstr("it writes")));
  EXPECT_THAT(Select(Publishing("{% if %}")).refusal, HasSubstr("no Jinja template"));
}

TEST_F(WithJinja, WhatATemplateRaisesIsToldInItsOwnWords) {
  EXPECT_THAT(Select(Publishing("{{ raise_exception('only tools are spoken to') }}")).refusal,
              HasSubstr("it raises: only tools are spoken to"));
}

TEST_F(WithJinja, ATemplateIsBoundedAndSeesNothingOfTheMachine) {
  const JinjaRenderer quick("python3", absl::Seconds(3));
  EXPECT_THAT(
      Select(Publishing("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"),
             quick)
          .refusal,
      HasSubstr("did not end in time"));
  EXPECT_THAT(Select(Publishing("{{ 'x' * 10000000000 }}")).refusal, HasSubstr("raises"));
  for (const char* escape :
       {"{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.listdir('/') }}", "{{ messages.append(1) }}"}) {
    const auto renderings = JinjaRenderer().Render(Publishing(escape), {{{{ChatRole::kUser, "x"}}}});
    ASSERT_THAT(renderings, IsOk()) << escape;
    EXPECT_EQ((*renderings)[0], std::nullopt) << escape;
  }
}

TEST(SelectChatTemplate, KnowsPublishedTemplatesWithoutAnEngine) {
  TokenizerConfig config = Embedded();
  const ChatTemplateChoice choice = Select(config, NoPython());
  ASSERT_TRUE(choice.chat_template.has_value()) << choice.refusal;
  EXPECT_EQ(choice.chat_template->format.name, "llama3");
  // The text alone is no proof: it writes a token that the checkpoint names.
  config.special_tokens["bos_token"] = "<s>";
  EXPECT_FALSE(Select(config, NoPython()).chat_template.has_value());
}

TEST(SelectChatTemplate, FingerprintsIgnoreHowLinesEnd) {
  EXPECT_EQ(TemplateFingerprint("a\r\nb\n"), TemplateFingerprint("a\nb"));
  // printf 'a\nb' | sha256sum
  EXPECT_EQ(TemplateFingerprint("a\nb"), "7e18f737311b2dc3b2f269dd78396b0351f14fb66efa879f768cb23181883c78");
}

TEST(SelectChatTemplate, RefusesOtherTemplatesWithoutAnEngineAndSaysSo) {
  for (const json& one : TestData("chat-templates.json").at("templates")) {
    const ChatTemplateChoice choice = Select(Publishing(one.at("chat_template")), NoPython());
    EXPECT_FALSE(choice.chat_template.has_value()) << one.at("name");
    EXPECT_THAT(choice.refusal,
                AllOf(HasSubstr("jinja2 is not installed"), HasSubstr("--chat-template takes")));
  }
}

TEST(SelectChatTemplate, GoesByTheTokensWhereNoneIsPublished) {
  EXPECT_EQ(SelectChatTemplate("auto", *SmallTokenizer(), {})->chat_template->format.name, "llama3");
  auto tokenizer_json = SmallTokenizerJson();
  tokenizer_json["added_tokens"] = {{{"id", 300}, {"content", "<|im_start|>"}, {"special", true}},
                                    {{"id", 301}, {"content", "<|im_end|>"}, {"special", true}},
                                    {{"id", 302}, {"content", "<begin>"}, {"special", true}}};
  TokenizerConfig config;
  config.begin_of_text = "<begin>";
  const auto tokenizer = *LoadTokenizer(tokenizer_json);
  const auto chatml = SelectChatTemplate("auto", *tokenizer, config);
  ASSERT_TRUE(chatml->chat_template.has_value());
  EXPECT_EQ(chatml->chat_template->format.name, "chatml");
  EXPECT_EQ(ApplyChatTemplate(*chatml->chat_template, *tokenizer, {{ChatRole::kUser, "x"}})->ids[0], 302);
  tokenizer_json["added_tokens"] = json::array();
  const auto none = SelectChatTemplate("auto", **LoadTokenizer(tokenizer_json), {});
  EXPECT_FALSE(none->chat_template.has_value());
  EXPECT_THAT(none->refusal, HasSubstr("publishes no chat template"));
}

TEST(SelectChatTemplate, TakesNoneWhenThePublishedOnesTokensAreMissing) {
  auto tokenizer_json = SmallTokenizerJson();
  tokenizer_json["added_tokens"].erase(3);
  const auto choice = SelectChatTemplate("auto", **LoadTokenizer(tokenizer_json), Embedded(), NoPython());
  EXPECT_FALSE(choice->chat_template.has_value());
  EXPECT_THAT(choice->refusal, HasSubstr("<|eot_id|>"));
}

TEST(SelectChatTemplate, TheUsersWordGoesFirst) {
  const auto name = [](const char* wanted, const Tokenizer& tokenizer) {
    return SelectChatTemplate(wanted, tokenizer, Embedded())->chat_template->format.name;
  };
  EXPECT_EQ(name("chatml", *RichTokenizer()), "chatml");
  EXPECT_EQ(name("llama3.1", *RichTokenizer()), "llama3.1");
  EXPECT_EQ(name("mistral", *RichTokenizer()), "mistral-v3-tekken");
  const auto none = SelectChatTemplate("none", *RichTokenizer(), Embedded());
  EXPECT_FALSE(none->chat_template.has_value());
  EXPECT_THAT(none->refusal, HasSubstr("--chat-template none"));
  const auto refused = SelectChatTemplate("mistral", *SmallTokenizer(), {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), AllOf(HasSubstr("<s>"), HasSubstr("mistral")));
  const auto unknown = SelectChatTemplate("alpaca", *RichTokenizer(), {});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()),
              AllOf(HasSubstr("alpaca"), HasSubstr("llama2, chatml")));
}

TEST(SelectChatTemplate, MistralGoesByTheTokenizer) {
  auto tokenizer_json = SmallTokenizerJson();
  for (const auto& [id, token] : {std::pair(300, "<s>"), std::pair(301, "</s>")}) {
    tokenizer_json["added_tokens"].push_back({{"id", id}, {"content", token}, {"special", true}});
  }
  EXPECT_EQ(SelectChatTemplate("mistral", **LoadTokenizer(tokenizer_json), {})->chat_template->format.name,
            "mistral-v1");
  for (const auto& [id, token] : {std::pair(302, "[INST]"), std::pair(303, "[/INST]")}) {
    tokenizer_json["added_tokens"].push_back({{"id", id}, {"content", token}, {"special", true}});
  }
  tokenizer_json["model"]["vocab"]["\u2581the"] = 304;
  EXPECT_EQ(SelectChatTemplate("mistral", **LoadTokenizer(tokenizer_json), {})->chat_template->format.name,
            "mistral-v3");
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
  EXPECT_EQ(Load()->special_tokens.at("bos_token"), "<s>");
  EXPECT_EQ(Load()->chat_template, "x");
  Write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": null})");
  EXPECT_EQ(Load()->begin_of_text, "<s>");
  EXPECT_EQ(Load()->chat_template, "");
}

TEST_F(TokenizerConfigTest, ReadsWhatIsPutAroundATextAndByWhom) {
  Write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true,
                                     "add_eos_token": false})");
  EXPECT_EQ(Load()->tokenizer_class, "LlamaTokenizerFast");
  EXPECT_EQ(Load()->add_bos_token, true);
  EXPECT_EQ(Load()->add_eos_token, false);
  Write("tokenizer_config.json", R"({"add_eos_token": null})");
  EXPECT_EQ(Load()->tokenizer_class, "");
  EXPECT_EQ(Load()->add_bos_token, std::nullopt);
  EXPECT_EQ(Load()->add_eos_token, std::nullopt);
}

TEST_F(TokenizerConfigTest, TakesTheDefaultOfSeveralTemplates) {
  Write(
      "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  EXPECT_EQ(Load()->chat_template, "d");
}

TEST_F(TokenizerConfigTest, SeveralTemplatesWithoutADefaultAreNone) {
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tool_use", "template": "t"}]})");
  EXPECT_EQ(Load()->chat_template, "");
  EXPECT_THAT(Load()->template_names, testing::ElementsAre("tool_use"));
}

TEST_F(TokenizerConfigTest, ATemplateInAnotherEncoding) {
  Write("chat_template.jinja", "R\xe9sum\xe9");
  EXPECT_THAT(Load().status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("chat_template.jinja: is not UTF-8, from byte 1 on")));
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
  EXPECT_THAT(error(R"({"tokenizer_class": ["LlamaTokenizer"]})"), HasSubstr("'tokenizer_class'"));
  EXPECT_THAT(error(R"({"add_bos_token": "true"})"), HasSubstr("'add_bos_token'"));
  EXPECT_THAT(error(R"({"add_eos_token": 1})"), HasSubstr("'add_eos_token'"));
  EXPECT_THAT(error(R"({"chat_template": 3})"), HasSubstr("'chat_template'"));
  EXPECT_THAT(error(R"({"chat_template": [{"name": "default"}]})"), HasSubstr("'chat_template'"));
}

}  // namespace
}  // namespace mechinterp::engine
