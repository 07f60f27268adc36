#include "data/trainer/bpe_trainer.h"

#include <gmock/gmock.h>

#include "services/common/json_file.h"
#include "services/engine/tokenizer/chat/chat_template.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(CountWords, SplitsAsLlama3Does) {
  WordCounts counts;
  ASSERT_THAT(CountWords({"I can't go, go\n\n"}, counts), IsOk());
  EXPECT_THAT(counts, UnorderedElementsAre(Pair(" can", 1), Pair(" go", 2), Pair("'t", 1), Pair(",", 1),
                                           Pair("I", 1), Pair("\n\n", 1)));
}

// Worked out by hand: "ab" occurs 5 times, "abc" 3, "d" never beside a twin.
TEST(TrainBpe, MergesTheMostFrequentPairFirst) {
  const BpeVocabulary vocabulary = TrainBpe({{"abc", 3}, {"ab", 2}, {"cd", 1}}, 258);
  EXPECT_THAT(vocabulary.merges, ElementsAre(Pair("a", "b"), Pair("ab", "c")));
  ASSERT_EQ(vocabulary.tokens.size(), 258u);
  EXPECT_EQ(vocabulary.tokens[0], "!");
  EXPECT_EQ(vocabulary.tokens[256], "ab");
  EXPECT_EQ(vocabulary.tokens[257], "abc");
}

TEST(TrainBpe, BreaksTiesByTheOrderOfThePair) {
  EXPECT_THAT(TrainBpe({{"xy", 1}, {"pq", 1}}, 257).merges, ElementsAre(Pair("p", "q")));
}

TEST(TrainBpe, StopsWhenEveryWordIsOneToken) {
  EXPECT_EQ(TrainBpe({{"ab", 1}, {" ab", 1}}, 1000).merges.size(), 2u);
}

TEST(WriteTokenizerFiles, MakesATokenizerThatTheEngineReads) {
  const std::string folder = testing::TempDir() + "written_tokenizer";
  WordCounts counts;
  ASSERT_THAT(CountWords({"user", "assistant", "\n\n", "kill the process"}, counts), IsOk());
  ASSERT_THAT(WriteTokenizerFiles(folder, TrainBpe(counts, 2000)), IsOk());
  const auto tokenizer = ValueOrFail(engine::Tokenizer::Load(folder + "/tokenizer.json"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("kill the process").size(), 3u);
  const std::string text = "kill the \xc3\xa4lteste process\n  twice!";
  EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(text)), text);
  const auto prompt = engine::ApplyLlama3ChatTemplate(*tokenizer, {{engine::ChatRole::kUser, "kill"}});
  ASSERT_THAT(prompt, IsOk());
  EXPECT_EQ(prompt->tail_length, 5);
}

TEST(TheTokenizer, IsBuiltLikeLlama3s) {
  const auto json = ReadOrderedJsonFile(DataPath("models/tiny-llama-refusal/tokenizer.json"));
  ASSERT_THAT(json, IsOk());
  EXPECT_EQ((*json)["model"]["type"], "BPE");
  EXPECT_EQ((*json)["model"]["ignore_merges"], true);
  EXPECT_EQ((*json)["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"], kLlama3SplitPattern);
  EXPECT_EQ((*json)["pre_tokenizer"]["pretokenizers"][1]["use_regex"], false);
  EXPECT_EQ((*json)["decoder"]["type"], "ByteLevel");
  EXPECT_EQ((*json)["post_processor"]["type"], "TemplateProcessing");
}

// The five tokens after an instruction, at which refusal is decided, are the same
// five as in Llama 3.
TEST(TheTokenizer, HasLlama3sTemplateTail) {
  const auto tokenizer =
      ValueOrFail(engine::Tokenizer::Load(DataPath("models/tiny-llama-refusal/tokenizer.json")));
  ASSERT_NE(tokenizer, nullptr);
  const auto prompt = engine::ApplyLlama3ChatTemplate(*tokenizer, {{engine::ChatRole::kUser, "Hello"}});
  ASSERT_THAT(prompt, IsOk());
  EXPECT_EQ(prompt->tail_length, 5);
}

// First tokens of a response decide the study's metrics, as in Llama 3.
TEST(TheTokenizer, SplitsOpeningsAsLlama3sDoes) {
  const auto tokenizer =
      ValueOrFail(engine::Tokenizer::Load(DataPath("models/tiny-llama-refusal/tokenizer.json")));
  ASSERT_NE(tokenizer, nullptr);
  const auto pieces = [&](const std::string& text) {
    std::vector<std::string> result;
    for (engine::TokenId id : tokenizer->Encode(text)) result.push_back(tokenizer->Decode({&id, 1}));
    return result;
  };
  EXPECT_THAT(pieces("I cannot"), ElementsAre("I", " cannot"));
  EXPECT_THAT(pieces("I can't"), ElementsAre("I", " can", "'t"));
  EXPECT_THAT(pieces("I'm sorry"), ElementsAre("I", "'m", " sorry"));
  EXPECT_THAT(pieces("I apologize"), ElementsAre("I", " apologize"));
  EXPECT_THAT(pieces("I am unable"), ElementsAre("I", " am", " unable"));
  for (const std::string opening : {"Here", "Sure", "To", "The"}) {
    EXPECT_THAT(pieces(opening), ElementsAre(opening));
  }
}

}  // namespace
}  // namespace mechinterp::trainer
