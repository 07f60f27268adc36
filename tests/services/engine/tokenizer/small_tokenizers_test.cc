#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;

// A small tokenizer for each setting of each stage, and what Hugging Face's
// tokenizers made of some texts with it: tests/interop/record_small_tokenizers.mjs.
const json& Recorded() {
  static const auto& recorded = *new json([] {
    std::ifstream file(ABSTRACT_SOURCE_DIR "/tests/testdata/small-tokenizers.json");
    return json::parse(file);
  }());
  return recorded;
}

class SmallTokenizers : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    json whole = Recorded()["base"];
    whole.update(variant_["parts"]);
    const auto tokenizer = LoadTokenizer(whole);
    ASSERT_THAT(tokenizer, IsOk()) << variant_["name"];
    tokenizer_ = *tokenizer;
  }

  std::string Streamed(const std::vector<TokenId>& ids, bool skip_special) const {
    StreamingDetokenizer stream(tokenizer_, skip_special);
    std::string text;
    for (const TokenId id : ids) text += stream.Push(id);
    return text + stream.Flush();
  }

  const json& variant_ = Recorded()["variants"][GetParam()];
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_P(SmallTokenizers, EncodeAsHuggingFaceDoes) {
  for (const json& recorded : variant_["cases"]) {
    EXPECT_EQ(tokenizer_->Encode(recorded[0].get<std::string>()), recorded[1].get<std::vector<TokenId>>())
        << variant_["name"] << ": " << recorded[0];
  }
}

TEST_P(SmallTokenizers, PutTheSameTokensAroundAText) {
  std::vector<TokenId> framed = tokenizer_->tokens_before();
  for (const TokenId id : tokenizer_->Encode("ab")) framed.push_back(id);
  framed.insert(framed.end(), tokenizer_->tokens_after().begin(), tokenizer_->tokens_after().end());
  EXPECT_EQ(framed, variant_["framed"].get<std::vector<TokenId>>()) << variant_["name"];
}

TEST_P(SmallTokenizers, DecodeAsHuggingFaceDoesAtOnceAndInPieces) {
  const auto expect = [&](const json& tokens, const json& expected, bool skip_special) {
    const auto ids = tokens.get<std::vector<TokenId>>();
    const auto text = expected.get<std::string>();
    EXPECT_EQ(tokenizer_->Decode(ids, skip_special), text) << variant_["name"] << ": " << tokens;
    EXPECT_EQ(Streamed(ids, skip_special), text) << variant_["name"] << ": " << tokens;
  };
  for (const json& recorded : variant_["cases"]) expect(recorded[1], recorded[2], false);
  for (const json& recorded : variant_["sequences"]) {
    expect(recorded[0], recorded[1], false);
    expect(recorded[0], recorded[2], true);
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, SmallTokenizers, testing::Range(size_t{0}, Recorded()["variants"].size()));

}  // namespace
}  // namespace mechinterp::engine
