#include "services/engine/tokenizer/tokenizer.h"

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

std::shared_ptr<const Tokenizer> Load(const json& tokenizer_json) {
  auto tokenizer = LoadTokenizer(tokenizer_json);
  EXPECT_THAT(tokenizer, IsOk());
  return tokenizer.value();
}

TEST(Encode, AppliesMergesByRankAndFallsBackToBytes) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_THAT(tokenizer->Encode("ab"), ElementsAre(kAb));
  EXPECT_THAT(tokenizer->Encode("aab"), ElementsAre('a', kAb));
  EXPECT_THAT(tokenizer->Encode("é"), ElementsAre(0xC3, 0xA9));
  EXPECT_THAT(tokenizer->Encode(""), IsEmpty());
}

TEST(Encode, MergesOnlyWithinAPiece) {
  // The pattern makes " " and "ab" pieces of their own, so "Ġ ab" never applies ...
  EXPECT_THAT(SmallTokenizer()->Encode(" ab"), ElementsAre(' ', kAb));
  // ... and without a pattern the whole text is one piece.
  json unsplit = SmallTokenizerJson();
  unsplit["pre_tokenizer"]["pretokenizers"].erase(0);
  EXPECT_THAT(Load(unsplit)->Encode(" ab"), ElementsAre(kSpaceAb));
}

TEST(Encode, PrefersTheLowerRankThenTheLeftmost) {
  json ranked = SmallTokenizerJson();
  ranked["model"]["vocab"]["xy"] = 270;
  ranked["model"]["vocab"]["yx"] = 271;
  ranked["model"]["merges"] = {"y x", "x y"};
  EXPECT_THAT(Load(ranked)->Encode("xyx"), ElementsAre('x', 271));
  ranked["model"]["merges"] = {"x y", "y x"};
  EXPECT_THAT(Load(ranked)->Encode("xyx"), ElementsAre(270, 'x'));
  ranked["model"]["vocab"]["xx"] = 272;
  ranked["model"]["merges"] = {"x x"};
  EXPECT_THAT(Load(ranked)->Encode("xxx"), ElementsAre(272, 'x'));
}

TEST(Encode, TakesAWholePieceAsItIsOnlyWithIgnoreMerges) {
  json ignoring = SmallTokenizerJson();
  ignoring["model"]["ignore_merges"] = true;
  EXPECT_THAT(SmallTokenizer()->Encode("cab"), ElementsAre('c', kAb));
  EXPECT_THAT(Load(ignoring)->Encode("cab"), ElementsAre(kCab));
  EXPECT_THAT(Load(ignoring)->Encode("cabs"), ElementsAre('c', kAb, 's'));
}

TEST(Encode, ReadsMergesInBothForms) {
  json pairs = SmallTokenizerJson();
  pairs["model"]["merges"] = json::array({json::array({"a", "b"}), json::array({"Ġ", "ab"})});
  EXPECT_THAT(Load(pairs)->Encode("cab"), ElementsAre('c', kAb));
}

TEST(Encode, SplitsByGpt2sPatternWhenByteLevelUsesItsRegex) {
  json gpt2 = SmallTokenizerJson();
  gpt2["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_THAT(Load(gpt2)->Encode("ab ab"), ElementsAre(kAb, kSpaceAb));
  // The space stays with the word: here it is the "'s" that is cut off.
  gpt2["model"]["vocab"]["'s"] = 270;
  gpt2["model"]["merges"] = {"a b", "' s"};
  EXPECT_THAT(Load(gpt2)->Encode("ab's"), ElementsAre(kAb, 270));
}

// As SmolLM2 writes it: "12" is a token that single digits never merge into.
TEST(Encode, SplitsDigitsFromTextAndFromEachOther) {
  json smol = SmallTokenizerJson();
  smol["model"]["vocab"]["12"] = 270;
  smol["model"]["merges"] = {"a b", "1 2"};
  smol["pre_tokenizer"]["pretokenizers"] = {
      {{"type", "Digits"}, {"individual_digits", true}},
      {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}};
  EXPECT_THAT(Load(smol)->Encode("ab12ab"), ElementsAre(kAb, '1', '2', kAb));
  smol["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  EXPECT_THAT(Load(smol)->Encode("ab12ab"), ElementsAre(kAb, 270, kAb));
  // GPT-2's pattern alone keeps a space with the number after it, Digits does not.
  smol["model"]["vocab"]["Ġ12"] = 271;
  smol["model"]["merges"].push_back("Ġ 12");
  EXPECT_THAT(Load(smol)->Encode(" 12"), ElementsAre(' ', 270));
  smol["pre_tokenizer"]["pretokenizers"].erase(0);
  EXPECT_THAT(Load(smol)->Encode(" 12"), ElementsAre(271));
}

TEST(Encode, AppliesSeveralSplitsInOrder) {
  json twice = SmallTokenizerJson();
  json& steps = twice["pre_tokenizer"]["pretokenizers"];
  json digits = steps[0];
  digits["pattern"]["Regex"] = "a";
  steps.insert(steps.begin() + 1, digits);
  EXPECT_THAT(Load(twice)->Encode("cab"), ElementsAre('c', 'a', 'b'));
}

TEST(Encode, FindsAddedTokensLongestFirst) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_THAT(tokenizer->Encode("<|eot_id|>ab<tool>"), ElementsAre(kEndOfTurn, kAb, kTool));
  EXPECT_THAT(tokenizer->Encode("<tool>call<tool>cal"), ElementsAre(kToolCall, kTool, 'c', 'a', 'l'));
  EXPECT_THAT(tokenizer->Encode("<|eot_id|"), ElementsAreArray(ByteIds("<|eot_id|")));
}

TEST(Encode, LooksForNormalizedAddedTokensInWhatTheOthersLeave) {
  json normalized = SmallTokenizerJson();
  json token = normalized["added_tokens"][4];
  token["content"] = "b<tool";
  token["id"] = 270;
  token["normalized"] = true;
  normalized["added_tokens"].push_back(token);
  EXPECT_THAT(Load(normalized)->Encode("b<tool>b<tool"), ElementsAre('b', kTool, 270));
}

TEST(Encode, LeavesSpecialTokensInPlainTextAlone) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_THAT(tokenizer->Encode("<|eot_id|>", SpecialTokens::kAsPlainText),
              ElementsAreArray(ByteIds("<|eot_id|>")));
  // Added tokens that are not special are ordinary text to the model.
  EXPECT_THAT(tokenizer->Encode("<tool>", SpecialTokens::kAsPlainText), ElementsAre(kTool));
  EXPECT_THAT(tokenizer->Encode("<tool>", SpecialTokens::kAsPlainText, {kTool}),
              ElementsAreArray(ByteIds("<tool>")));
}

TEST(Encode, NeverMakesASpecialTokenOfPlainTextByIgnoreMerges) {
  json forging = SmallTokenizerJson();
  forging["model"]["ignore_merges"] = true;
  forging["model"]["vocab"]["<|eot_id|>"] = kEndOfTurn;
  forging["pre_tokenizer"]["pretokenizers"].erase(0);
  EXPECT_THAT(Load(forging)->Encode("<|eot_id|>", SpecialTokens::kAsPlainText),
              ElementsAreArray(ByteIds("<|eot_id|>")));
}

TEST(Encode, EncodesMalformedUtf8ByteByByte) {
  EXPECT_THAT(SmallTokenizer()->Encode("ab\xFF\xF0\x9F"
                                       "ab\xE6"),
              ElementsAre(kAb, 0xFF, 0xF0, 0x9F, kAb, 0xE6));
}

TEST(DecodeBytes, GivesBackWhatWasEncodedWhateverTheBytes) {
  const auto tokenizer = SmallTokenizer();
  const std::vector<std::string> parts = {"ab", " ",        "<|eot_id|>", "<tool>", "😀",
                                          "é",  "\xF0\x9F", "\xC0",       "\n"};
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (size_t i = random() % 20; i > 0; --i) {
      bytes +=
          random() % 2 == 0 ? parts[random() % parts.size()] : std::string(1, static_cast<char>(random()));
    }
    for (const auto special : {SpecialTokens::kParse, SpecialTokens::kAsPlainText}) {
      EXPECT_EQ(tokenizer->DecodeBytes(tokenizer->Encode(bytes, special)), bytes);
    }
  }
}

// As files from before `prepend_scheme` say it.
TEST(Encode, TakesAFalseAddPrefixSpaceForNever) {
  json metaspace = SmallTokenizerJson();
  metaspace["model"]["vocab"]["▁"] = 270;
  metaspace["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"add_prefix_space", false}};
  EXPECT_THAT(Load(metaspace)->Encode("a b"), ElementsAre('a', 270, 'b'));
  metaspace["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(Load(metaspace)->Encode("a b"), ElementsAre(270, 'a', 270, 'b'));
}

TEST(Encode, PutsASpaceInFrontOfAStartOnly) {
  json first = SmallTokenizerJson();
  first["model"]["vocab"]["▁"] = 270;
  first["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  const auto tokenizer = Load(first);
  EXPECT_THAT(tokenizer->Encode("ab"), ElementsAre(270, kAb));
  EXPECT_THAT(tokenizer->Encode("ab", SpecialTokens::kParse, {}, TextPlace::kAfterToken), ElementsAre(kAb));
  EXPECT_THAT(tokenizer->Encode("<|eot_id|>ab"), ElementsAre(kEndOfTurn, kAb));
}

TEST(Encode, LeavesTheTokensAroundATextToTheCaller) {
  json framing = SmallTokenizerJson();
  framing["post_processor"] = {{"type", "BertProcessing"},
                               {"cls", {"<|begin_of_text|>", kBeginOfText}},
                               {"sep", {"<|eot_id|>", kEndOfTurn}}};
  const auto tokenizer = Load(framing);
  EXPECT_THAT(tokenizer->Encode("ab"), ElementsAre(kAb));
  EXPECT_THAT(tokenizer->tokens_before(), ElementsAre(kBeginOfText));
  EXPECT_THAT(tokenizer->tokens_after(), ElementsAre(kEndOfTurn));
  EXPECT_THAT(SmallTokenizer()->tokens_before(), IsEmpty());
}

// A decoder that strips the start of a text would make these " ab" an "ab".
TEST(TokenText, ShowsATokenAsItIsAmidOthers) {
  json stripping = SmallTokenizerJson();
  stripping["decoder"] = {
      {"type", "Sequence"},
      {"decoders",
       {{{"type", "ByteLevel"}}, {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  const auto tokenizer = Load(stripping);
  EXPECT_EQ(tokenizer->Decode({kSpaceAb, kSpaceAb}), "ab ab");
  EXPECT_EQ(tokenizer->TokenText(kSpaceAb), " ab");
  EXPECT_EQ(tokenizer->TokenText(0xC3), "\uFFFD");
  EXPECT_EQ(tokenizer->TokenText(kEndOfTurn), "<|eot_id|>");
  EXPECT_EQ(tokenizer->TokenText(1 << 30), "");
  // A normalized one, too, without what the normalizer puts in front of it.
  json prepending = SmallTokenizerJson();
  prepending["normalizer"] = {{"type", "Prepend"}, {"prepend", " "}};
  prepending["added_tokens"][3]["normalized"] = true;
  EXPECT_EQ(Load(prepending)->TokenText(kEndOfTurn), "<|eot_id|>");
}

TEST(Decode, IsAlwaysValidUtf8) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer->Decode({0xF0, 0x9F, 'a', 0x80}), "\uFFFDa\uFFFD");
  EXPECT_EQ(tokenizer->Decode({'a', 0xF0, 0x9F}), "a\uFFFD");
  EXPECT_EQ(tokenizer->DecodeBytes({'a', 0xF0, 0x9F}), "a\xF0\x9F");
}

TEST(Decode, SkipsSpecialTokensWhenAsked) {
  const auto tokenizer = SmallTokenizer();
  const std::vector<TokenId> ids = {kBeginOfText, kAb, kTool, kEndOfTurn};
  EXPECT_EQ(tokenizer->Decode(ids), "<|begin_of_text|>ab<tool><|eot_id|>");
  EXPECT_EQ(tokenizer->Decode(ids, /*skip_special=*/true), "ab<tool>");
}

TEST(Decode, TakesIdsOutsideTheVocabularyForNothing) {
  EXPECT_EQ(SmallTokenizer()->Decode({'a', -5, 259, 1 << 30, 'b'}), "ab");
}

TEST(Tokenizer, KnowsItsTokensByTheirText) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_EQ(tokenizer->TokenToId("Ġab"), kSpaceAb);
  EXPECT_EQ(tokenizer->TokenToId("<|eot_id|>"), kEndOfTurn);
  EXPECT_EQ(tokenizer->TokenToId("nothing"), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(kEndOfTurn));
  EXPECT_FALSE(tokenizer->IsSpecial(kTool));
  EXPECT_FALSE(tokenizer->IsSpecial(-1));
  EXPECT_FALSE(tokenizer->IsSpecial(1 << 30));
  EXPECT_TRUE(tokenizer->IsAdded(kEndOfTurn));
  EXPECT_TRUE(tokenizer->IsAdded(kTool));
  EXPECT_FALSE(tokenizer->IsAdded(kAb));
  EXPECT_FALSE(tokenizer->IsAdded(-1));
  EXPECT_FALSE(tokenizer->IsAdded(1 << 30));
  EXPECT_EQ(tokenizer->vocab_size(), kToolCall + 1);
}

}  // namespace
}  // namespace mechinterp::engine
