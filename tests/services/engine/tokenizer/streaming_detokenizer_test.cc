#include "services/engine/tokenizer/streaming_detokenizer.h"

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

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

std::shared_ptr<const Tokenizer> LlamaLike() {
  nlohmann::json vocab = {{"<unk>", 0}, {"▁Hi", 1}, {"▁", 2}, {"!", 3}};
  for (int byte = 0; byte < 256; ++byte) vocab[absl::StrFormat("<0x%02X>", byte)] = 4 + byte;
  const auto tokenizer = LoadTokenizer(
      {{"model",
        {{"type", "BPE"}, {"byte_fallback", true}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}},
       {"decoder",
        {{"type", "Sequence"},
         {"decoders",
          {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
           {{"type", "ByteFallback"}},
           {{"type", "Fuse"}},
           {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}}});
  EXPECT_THAT(tokenizer, IsOk());
  return tokenizer.value();
}

TEST(StreamingDetokenizer, StripsTheSpaceOfTheStartOnlyThere) {
  StreamingDetokenizer stream(LlamaLike());
  EXPECT_EQ(stream.Push(1), "Hi");
  EXPECT_EQ(stream.Push(1), " Hi");
  StreamingDetokenizer spaces(LlamaLike());
  EXPECT_EQ(spaces.Push(2), "");
  EXPECT_EQ(spaces.Push(2), " ");
  EXPECT_EQ(spaces.Flush(), "");
  EXPECT_EQ(spaces.Push(1), "Hi");  // another stream
}

// Hugging Face makes as many replacements of a run that is not a text as it has
// bytes, those of its good characters too.
TEST(StreamingDetokenizer, HoldsBackARunOfByteTokensUntilItEnds) {
  StreamingDetokenizer stream(LlamaLike());
  EXPECT_EQ(stream.Push(4 + 0xC3), "");
  EXPECT_EQ(stream.Push(4 + 0xA9), "");
  EXPECT_EQ(stream.Push(3), "é!");
  EXPECT_EQ(stream.Push(4 + 'a'), "");
  EXPECT_EQ(stream.Push(4 + 0xFF), "");
  EXPECT_EQ(stream.Push(3), "\uFFFD\uFFFD!");
  EXPECT_EQ(stream.Push(4 + '\n'), "");
  EXPECT_EQ(stream.Flush(), "\n");
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
