#include "services/engine/tokenizer/chat/prompt_builder.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/engine/tokenizer/small_tokenizer.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;

TemplatedPrompt Build(const json& tokenizer_json, const std::function<void(PromptBuilder&)>& add) {
  const auto tokenizer = LoadTokenizer(tokenizer_json);
  EXPECT_THAT(tokenizer, IsOk());
  const std::vector<TokenId> no_markers;
  PromptBuilder builder(**tokenizer, no_markers);
  add(builder);
  return std::move(builder).Finish(/*instruction_is_last=*/true);
}

TEST(PromptBuilder, FindsTheLastTokenOfTheInstruction) {
  const TemplatedPrompt prompt = Build(SmallTokenizerJson(), [](PromptBuilder& builder) {
    builder.Token(kStartHeader);
    builder.Text("x");
    builder.Text("cab");
    builder.EndInstruction();
    builder.Text("!!");
    builder.Token(kEndOfTurn);
  });
  EXPECT_THAT(prompt.ids, ElementsAre(kStartHeader, 'x', 'c', kAb, '!', '!', kEndOfTurn));
  EXPECT_EQ(prompt.last_instruction_position, 3);
  EXPECT_EQ(prompt.tail_length, 3);
}

// "e" and an accent are one character of two bytes when composed.
TEST(PromptBuilder, FindsItWhereANormalizerChangesLengths) {
  json composing = SmallTokenizerJson();
  composing["normalizer"] = {{"type", "NFC"}};
  const TemplatedPrompt prompt = Build(composing, [](PromptBuilder& builder) {
    builder.Text("xe\u0301");
    builder.EndInstruction();
    builder.Text("ab");
  });
  EXPECT_THAT(prompt.ids, ElementsAre('x', 0xC3, 0xA9, kAb));
  EXPECT_EQ(prompt.last_instruction_position, 2);
}

TEST(PromptBuilder, FindsItWhereASpaceIsPutInFront) {
  json prepending = SmallTokenizerJson();
  prepending["normalizer"] = {{"type", "Prepend"}, {"prepend", " "}};
  const TemplatedPrompt prompt = Build(prepending, [](PromptBuilder& builder) {
    builder.Text("x");
    builder.EndInstruction();
    builder.Text("y");
  });
  EXPECT_THAT(prompt.ids, ElementsAre(' ', 'x', 'y'));
  EXPECT_EQ(prompt.last_instruction_position, 1);
}

// As in the whole text of the template, where a token stands before it.
TEST(PromptBuilder, PutsNoSpaceInFrontOfTextAfterAToken) {
  json first = SmallTokenizerJson();
  first["model"]["vocab"]["▁"] = 270;
  first["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}};
  EXPECT_THAT(Build(first, [](PromptBuilder& builder) { builder.Text("ab"); }).ids, ElementsAre(270, kAb));
  EXPECT_THAT(Build(first,
                    [](PromptBuilder& builder) {
                      builder.Token(kBeginOfText);
                      builder.Text("ab");
                    })
                  .ids,
              ElementsAre(kBeginOfText, kAb));
}

}  // namespace
}  // namespace mechinterp::engine
