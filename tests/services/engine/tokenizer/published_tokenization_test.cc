#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/engine/tokenizer/text_frame.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/published_tokenizer.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;

json ReadTestData(const std::string& name) {
  std::ifstream file(ABSTRACT_SOURCE_DIR "/tests/testdata/tokenization/" + name + ".json");
  return json::parse(file);
}

std::string Streamed(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<TokenId>& ids,
                     bool skip_special) {
  StreamingDetokenizer stream(tokenizer, skip_special);
  std::string text;
  for (const TokenId id : ids) {
    const std::string more = stream.Push(id);
    // Each piece by itself is well-formed, too: JSON takes nothing else.
    EXPECT_NO_THROW(json(more).dump());
    text += more;
  }
  return text + stream.Flush();
}

// What Hugging Face's tokenizers made of the texts, recorded by
// tests/interop/record_tokenizations.mjs.
class PublishedTokenization : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    tokenizer_ = PublishedTokenizer(GetParam());
    ASSERT_NE(tokenizer_, nullptr);
  }

  const json expected_ = ReadTestData(GetParam());
  const std::vector<std::string> inputs_ = ReadTestData("inputs").get<std::vector<std::string>>();
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_P(PublishedTokenization, EncodesEveryTextAsHuggingFaceDoes) {
  ASSERT_GE(inputs_.size(), 500u);
  ASSERT_EQ(expected_["ids"].size(), inputs_.size());
  for (size_t i = 0; i < inputs_.size(); ++i) {
    EXPECT_EQ(tokenizer_->Encode(inputs_[i]), expected_["ids"][i].get<std::vector<TokenId>>())
        << json(inputs_[i]);
  }
}

TEST_P(PublishedTokenization, PutsTheSameTokensAroundAText) {
  EXPECT_EQ(tokenizer_->tokens_before(), expected_["before"].get<std::vector<TokenId>>());
  EXPECT_EQ(tokenizer_->tokens_after(), expected_["after"].get<std::vector<TokenId>>());
}

TEST_P(PublishedTokenization, DecodesEveryTextAsHuggingFaceDoesAtOnceAndInPieces) {
  const json& decoded = expected_["decoded"];
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const auto ids = expected_["ids"][i].get<std::vector<TokenId>>();
    const std::string text = decoded.value(std::to_string(i), inputs_[i]);
    EXPECT_EQ(tokenizer_->Decode(ids), text) << json(inputs_[i]);
    EXPECT_EQ(Streamed(tokenizer_, ids, /*skip_special=*/false), text) << json(inputs_[i]);
  }
}

TEST_P(PublishedTokenization, DecodesAnySequenceAsHuggingFaceDoesAtOnceAndInPieces) {
  ASSERT_EQ(expected_["sequences"].size(), 100u);
  for (const json& sequence : expected_["sequences"]) {
    const auto ids = sequence[0].get<std::vector<TokenId>>();
    for (const bool skip_special : {false, true}) {
      const auto text = sequence[skip_special ? 2 : 1].get<std::string>();
      EXPECT_EQ(tokenizer_->Decode(ids, skip_special), text) << sequence;
      EXPECT_EQ(Streamed(tokenizer_, ids, skip_special), text) << sequence;
    }
  }
}

// Our own rule: what is malformed becomes the tokens of its bytes.
TEST_P(PublishedTokenization, KeepsBytesThatAreNotUtf8) {
  for (const std::string bytes :
       {"\xFF", "a\xFF\xFE b", "\xE6\x97", "ab\xE6\x97 日\xF0\x9F\x98", "\xC0\xAF.."}) {
    // What a normalizer puts in front is all that may be more.
    const std::string back = tokenizer_->DecodeBytes(tokenizer_->Encode(bytes));
    EXPECT_TRUE(back == bytes || back == " " + bytes)
        << json(back).dump(-1, ' ', true, json::error_handler_t::ignore);
  }
}

// AutoTokenizer's ids in transformers 4, from the report of a mismatch (swift-transformers, issue 161).
TEST(PublishedTextFrame, OfDeepSeekR1DistillStandsInItsConfiguration) {
  TokenizerConfig config;
  config.special_tokens = {{"bos_token", "<｜begin▁of▁sentence｜>"}, {"eos_token", "<｜end▁of▁sentence｜>"}};
  config.tokenizer_class = "LlamaTokenizerFast";
  config.add_bos_token = true;
  config.add_eos_token = false;
  const auto qwen = PublishedTokenizer("deepseek-r1-distill-qwen");
  ASSERT_NE(qwen, nullptr);
  EXPECT_TRUE(qwen->tokens_before().empty());
  EXPECT_EQ(TextFrameOf(*qwen, config)->before, std::vector<TokenId>{151646});
  EXPECT_EQ(qwen->Encode("Who are you?"), (std::vector<TokenId>{15191, 525, 498, 30}));
  EXPECT_TRUE(TextFrameOf(*qwen, config)->after.empty());
}

INSTANTIATE_TEST_SUITE_P(Models, PublishedTokenization,
                         testing::Values("llama1", "llama2", "llama2-normalized", "llama3", "llama3.1",
                                         "mistral-v0.1", "mistral-v0.3", "mistral-nemo", "qwen2.5", "qwen3",
                                         "deepseek-r1-distill-llama", "deepseek-r1-distill-qwen",
                                         "smollm2-stages"),
                         [](const auto& info) {
                           std::string name;
                           for (const char letter : info.param)
                             name += letter == '-' || letter == '.' ? '_' : letter;
                           return name;
                         });

}  // namespace
}  // namespace mechinterp::engine
