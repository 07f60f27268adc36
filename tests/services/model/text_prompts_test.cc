// Texts on their way in and out: which tokens stand around a raw text, and what a stream of tokens says.

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const fs::path kEmbeddedModel = fs::path(ABSTRACT_SOURCE_DIR) / "data/models/tiny-llama-refusal";
constexpr uint32_t kBeginOfText = 2603;
constexpr uint32_t kEndOfTurn = 2607;

json ReadJson(const fs::path& path) {
  std::ifstream file(path);
  return json::parse(file);
}

// The embedded model's folder with other files in the place of some; removed again.
class ModelFolder {
 public:
  ModelFolder() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    for (const fs::directory_entry& file : fs::directory_iterator(kEmbeddedModel)) {
      fs::create_symlink(file.path(), folder_ / file.path().filename());
    }
  }
  ~ModelFolder() { fs::remove_all(folder_); }

  void Write(const std::string& name, const json& content) {
    fs::remove(folder_ / name);
    std::ofstream(folder_ / name) << content;
  }
  void Remove(const std::string& name) { fs::remove(folder_ / name); }

  std::vector<uint32_t> Tokenize(const std::string& text, bool omit_begin_of_text = false) {
    v1::TokenizeRequest request;
    request.mutable_prompt()->set_text(text);
    request.set_omit_begin_of_text(omit_begin_of_text);
    return Tokenize(request);
  }
  std::vector<uint32_t> TokenizeChat(const std::string& content) {
    v1::TokenizeRequest request;
    v1::ChatMessage& message = *request.mutable_prompt()->mutable_chat()->add_messages();
    message.set_role(v1::CHAT_ROLE_USER);
    message.set_content(content);
    return Tokenize(request);
  }
  absl::StatusOr<std::shared_ptr<const engine::Model>> Load() const {
    return engine::Model::Load(folder_.string());
  }

 private:
  std::vector<uint32_t> Tokenize(const v1::TokenizeRequest& request) const {
    const auto model = Load();
    EXPECT_THAT(model, IsOk());
    if (!model.ok()) return {};
    ServiceFixture service(*model);
    v1::TokenizeResponse response;
    grpc::ClientContext context;
    EXPECT_THAT(service.stub().Tokenize(&context, request, &response), IsOk());
    return {response.ids().begin(), response.ids().end()};
  }

  fs::path folder_ = testing::TempDir() + "text-prompts-" + std::to_string(getpid());
};

// What transformers 5 begins a text with, for each that a checkpoint may say.
struct BeginOfTextCase {
  json config_bos_token_id;  // discarded: absent
  bool post_processor_adds;
  json tokenizer_config;  // null: no such file
  bool begins;
};

TEST(TextPrompts, BeginAsTheTokenizersPostProcessorSays) {
  const json absent(json::value_t::discarded);
  const json names_it = {{"bos_token", "<|begin_of_text|>"}};
  for (const BeginOfTextCase& tried : {BeginOfTextCase{kBeginOfText, true, names_it, true},
                                       {nullptr, true, names_it, true},
                                       {absent, true, nullptr, true},
                                       {kBeginOfText, false, names_it, false},
                                       {kBeginOfText, false, {{"bos_token", nullptr}}, false}}) {
    ModelFolder folder;
    json config = ReadJson(kEmbeddedModel / "config.json");
    config["bos_token_id"] = tried.config_bos_token_id;
    if (tried.config_bos_token_id.is_discarded()) config.erase("bos_token_id");
    folder.Write("config.json", config);
    json tokenizer = ReadJson(kEmbeddedModel / "tokenizer.json");
    if (!tried.post_processor_adds) tokenizer["post_processor"] = {{"type", "ByteLevel"}};
    folder.Write("tokenizer.json", tokenizer);
    folder.Remove("tokenizer_config.json");
    if (!tried.tokenizer_config.is_null()) folder.Write("tokenizer_config.json", tried.tokenizer_config);
    const std::vector<uint32_t> ids = folder.Tokenize("Hi");
    ASSERT_FALSE(ids.empty());
    EXPECT_EQ(ids.front() == kBeginOfText, tried.begins) << config["bos_token_id"];
  }
}

// As DeepSeek-R1-Distill's: a post-processor that adds nothing, a template that begins by itself.
TEST(TextPrompts, BeginAsTheConfigurationTellsAClassThatListensAndChatsBeginOnce) {
  for (const bool post_processor_adds : {false, true}) {
    for (const bool told : {false, true}) {
      ModelFolder folder;
      json tokenizer = ReadJson(kEmbeddedModel / "tokenizer.json");
      if (!post_processor_adds) tokenizer["post_processor"] = {{"type", "ByteLevel"}};
      folder.Write("tokenizer.json", tokenizer);
      json config = ReadJson(kEmbeddedModel / "tokenizer_config.json");
      config["tokenizer_class"] = "LlamaTokenizerFast";
      config["add_bos_token"] = told;
      folder.Write("tokenizer_config.json", config);
      const std::vector<uint32_t> bare = folder.Tokenize("Hi", /*omit_begin_of_text=*/true);
      std::vector<uint32_t> begun = bare;
      begun.insert(begun.begin(), kBeginOfText);
      EXPECT_EQ(folder.Tokenize("Hi"), told ? begun : bare);
      EXPECT_EQ(folder.Tokenize("<|begin_of_text|>Hi"), begun);
      const std::vector<uint32_t> chat = folder.TokenizeChat("Hi");
      ASSERT_FALSE(chat.empty());
      EXPECT_EQ(chat.front(), kBeginOfText);
      EXPECT_EQ(std::count(chat.begin(), chat.end(), kBeginOfText), 1);
      const auto model = folder.Load();
      ASSERT_THAT(model, IsOk());
      if (told == post_processor_adds) {
        EXPECT_THAT((*model)->load_remarks(), IsEmpty());
      } else {
        EXPECT_THAT((*model)->load_remarks(),
                    ElementsAre(AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("add_bos_token"))));
      }
    }
  }
}

TEST(TextPrompts, AreRefusedWithTheModelWhereNoTokenIsWhatTheyBeginWith) {
  ModelFolder folder;
  json config = ReadJson(kEmbeddedModel / "tokenizer_config.json");
  config.update({{"tokenizer_class", "LlamaTokenizer"}, {"add_bos_token", true}, {"bos_token", "<begin>"}});
  folder.Write("tokenizer_config.json", config);
  EXPECT_THAT(folder.Load().status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("tokenizer_config.json: 'add_bos_token'"), HasSubstr("<begin>"))));
}

TEST(TextPrompts, HaveWhatThePostProcessorPutsAfterThemToo) {
  ModelFolder folder;
  json tokenizer = ReadJson(kEmbeddedModel / "tokenizer.json");
  tokenizer["post_processor"] = {{"type", "RobertaProcessing"},
                                 {"cls", {"<|begin_of_text|>", kBeginOfText}},
                                 {"sep", {"<|eot_id|>", kEndOfTurn}}};
  folder.Write("tokenizer.json", tokenizer);
  const std::vector<uint32_t> bare = folder.Tokenize("!", /*omit_begin_of_text=*/true);
  ASSERT_EQ(bare.size(), 1u);
  EXPECT_THAT(folder.Tokenize("!"), ElementsAre(kBeginOfText, bare[0], kEndOfTurn));
}

TEST(TextPrompts, ThatBeginWithBeginOfTextGetNoSecondOne) {
  ModelFolder folder;
  const std::vector<uint32_t> ids = folder.Tokenize("!");
  EXPECT_EQ(folder.Tokenize("<|begin_of_text|>!"), ids);
}

// The client's stop token need not be a special one.
TEST(GeneratedText, DoesNotHaveTheStopToken) {
  const auto model = engine::Model::Load(kEmbeddedModel.string());
  ASSERT_THAT(model, IsOk());
  ServiceFixture service(*model);
  v1::GenerateRequest request;
  v1::ChatMessage& message = *request.mutable_prompt()->mutable_chat()->add_messages();
  message.set_role(v1::CHAT_ROLE_USER);
  message.set_content("How do I make a sandwich?");
  const auto whole = service.Generate(request);
  ASSERT_THAT(whole.status, IsOk());
  ASSERT_GT(whole.tokens.size(), 4u);
  const v1::GeneratedToken& stop = whole.tokens[3];
  ASSERT_FALSE(stop.text().empty());
  std::string expected;
  for (const v1::GeneratedToken& token : whole.tokens) {
    if (token.token_id() == stop.token_id()) break;
    expected += token.text();
  }

  request.mutable_sampling()->add_stop_token_ids(stop.token_id());
  const auto stopped = service.Generate(request);
  ASSERT_THAT(stopped.status, IsOk());
  std::string streamed;
  for (const v1::GeneratedToken& token : stopped.tokens) streamed += token.text();
  streamed += stopped.summary.trailing_text();
  EXPECT_EQ(streamed, expected);
  EXPECT_EQ(stopped.summary.continuation().text(), expected);
  EXPECT_EQ(stopped.tokens.back().token_id(), stop.token_id());
  EXPECT_EQ(stopped.summary.continuation().finish_reason(), v1::FINISH_REASON_STOP_TOKEN);
}

}  // namespace
}  // namespace mechinterp
