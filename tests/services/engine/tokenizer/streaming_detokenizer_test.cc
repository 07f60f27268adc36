#include "services/engine/tokenizer/streaming_detokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"

namespace mechinterp::engine {
namespace {

// The small tokenizer spells "😀" as the four bytes F0 9F 98 80.
TEST(StreamingDetokenizer, HoldsBackAnEmojiUntilItsLastToken) {
  StreamingDetokenizer stream(SmallTokenizer());
  EXPECT_EQ(stream.Push('a'), "a");
  EXPECT_EQ(stream.Push(0xF0), "");
  EXPECT_EQ(stream.Push(0x9F), "");
  EXPECT_EQ(stream.Push(0x98), "");
  EXPECT_EQ(stream.Push(0x80), "😀");
  EXPECT_EQ(stream.Push(kAb), "ab");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(StreamingDetokenizer, FlushesATruncatedCharacterAsOneReplacement) {
  StreamingDetokenizer stream(SmallTokenizer());
  EXPECT_EQ(stream.Push(0xE6), "");
  EXPECT_EQ(stream.Push(0x97), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(StreamingDetokenizer, ReplacesMalformedBytesAsSoonAsTheyAreKnownToBe) {
  StreamingDetokenizer stream(SmallTokenizer());
  EXPECT_EQ(stream.Push(0xFF), "\uFFFD");
  EXPECT_EQ(stream.Push(0xE6), "");
  EXPECT_EQ(stream.Push('x'), "\uFFFDx");
}

TEST(StreamingDetokenizer, SkipsSpecialTokensUnlessTold) {
  StreamingDetokenizer skipping(SmallTokenizer());
  EXPECT_EQ(skipping.Push(kEndOfTurn), "");
  EXPECT_EQ(skipping.Push(kTool), "<tool>");
  StreamingDetokenizer showing(SmallTokenizer(), /*skip_special=*/false);
  EXPECT_EQ(showing.Push(kEndOfTurn), "<|eot_id|>");
}

TEST(StreamingDetokenizer, IgnoresIdsOutsideTheVocabulary) {
  StreamingDetokenizer stream(SmallTokenizer());
  EXPECT_EQ(stream.Push(-1), "");
  EXPECT_EQ(stream.Push(1 << 30), "");
}

TEST(StreamingDetokenizer, SaysInAllWhatDecodeSays) {
  const auto tokenizer = SmallTokenizer();
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<TokenId> ids(random() % 40);
    for (TokenId& id : ids) id = static_cast<TokenId>(random() % 270);
    StreamingDetokenizer stream(tokenizer, /*skip_special=*/false);
    std::string text;
    for (const TokenId id : ids) text += stream.Push(id);
    text += stream.Flush();
    EXPECT_EQ(text, tokenizer->Decode(ids));
  }
}

}  // namespace
}  // namespace mechinterp::engine
