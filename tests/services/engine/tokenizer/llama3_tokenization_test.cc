#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/engine/tokenizer/streaming_detokenizer.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/published_tokenizer.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;
using ::testing::Each;
using ::testing::ElementsAre;

json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return json::parse(file);
}

class Llama3Tokenization : public Llama3TokenizerTest {};

TEST_F(Llama3Tokenization, HasTheVocabularyOfTheModel) {
  EXPECT_EQ(tokenizer_->vocab_size(), 128256);
  EXPECT_EQ(tokenizer_->TokenToId("<|end_of_text|>"), 128001);
  EXPECT_TRUE(tokenizer_->IsSpecial(128009));
  EXPECT_FALSE(tokenizer_->IsSpecial(9906));
}

// Byte pair encoding as its definition says, without a heap or a linked list.
class NaiveBpe {
 public:
  explicit NaiveBpe(const json& model) : vocab_(model["vocab"].get<std::map<std::string, TokenId>>()) {
    for (const auto& merge : model["merges"]) {
      const auto text = merge.get<std::string>();
      const size_t space = text.find(' ');
      const auto rank = static_cast<int>(ranks_.size());
      ranks_[{text.substr(0, space), text.substr(space + 1)}] = rank;
    }
  }

  std::vector<TokenId> Encode(const std::string& piece) const {
    if (const auto whole = vocab_.find(piece); whole != vocab_.end()) return {whole->second};
    std::vector<std::string> tokens;
    for (const char letter : piece) tokens.emplace_back(1, letter);
    while (true) {
      size_t best = 0;
      int best_rank = std::numeric_limits<int>::max();
      for (size_t i = 0; i + 1 < tokens.size(); ++i) {
        const auto rank = ranks_.find({tokens[i], tokens[i + 1]});
        if (rank != ranks_.end() && rank->second < best_rank) {
          best = i;
          best_rank = rank->second;
        }
      }
      if (best_rank == std::numeric_limits<int>::max()) break;
      tokens[best] += tokens[best + 1];
      tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
    std::vector<TokenId> ids;
    for (const std::string& token : tokens) ids.push_back(vocab_.at(token));
    return ids;
  }

 private:
  std::map<std::string, TokenId> vocab_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

TEST_F(Llama3Tokenization, AgreesWithANaiveImplementationOnRandomWords) {
  const NaiveBpe naive(ReadJson(PublishedTokenizerPath("llama3"))["model"]);
  // Letters only, so that each word is one piece; few, so that merges abound.
  const std::string letters = "eeeettaaooinnsrrhlldcu";
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string word(1 + random() % 60, 'e');
    for (char& letter : word) letter = letters[random() % letters.size()];
    EXPECT_EQ(tokenizer_->Encode(word), naive.Encode(word)) << word;
  }
}

TEST_F(Llama3Tokenization, GivesBackRandomBytes) {
  std::mt19937 random(2);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes(random() % 80, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random() % 4 == 0 ? random() : 0x20 + random() % 0x5F);
    EXPECT_EQ(tokenizer_->DecodeBytes(tokenizer_->Encode(bytes)), bytes);
  }
}

TEST_F(Llama3Tokenization, EncodesAVeryLongWordInLittleTime) {
  const std::string word(400000, 'a');
  const auto start = std::chrono::steady_clock::now();
  const std::vector<TokenId> ids = tokenizer_->Encode(word);
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(tokenizer_->DecodeBytes(ids), word);
  // "aaaaaaaa", as in the fixture with a long run.
  EXPECT_THAT(ids, Each(70540));
  // A quadratic merge would take minutes; a sanitizer or a busy machine does not.
  EXPECT_LT(seconds, 10);
}

TEST_F(Llama3Tokenization, EncodesALongRunOfSpaces) {
  const std::string text(200000, ' ');
  EXPECT_EQ(tokenizer_->DecodeBytes(tokenizer_->Encode(text)), text);
}

TEST_F(Llama3Tokenization, StreamsAnEmojiThatIsSplitOverTokens) {
  const std::string text = "Hi 👩‍👩‍👧‍👦!";
  const std::vector<TokenId> ids = tokenizer_->Encode(text);
  ASSERT_GT(ids.size(), 8u);
  StreamingDetokenizer stream(tokenizer_);
  std::string streamed;
  for (const TokenId id : ids) {
    const std::string more = stream.Push(id);
    EXPECT_EQ(more.find("\uFFFD"), std::string::npos);
    streamed += more;
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(stream.Flush(), "");
}

}  // namespace
}  // namespace mechinterp::engine
