#include "services/model/engine/tokenizer/chat_template.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/services/model/engine/tokenizer/small_tokenizer.h"

namespace mechinterp::engine {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

TEST(ApplyLlama3ChatTemplate, WorksWithAnyTokenizerThatHasItsSpecialTokens) {
  const auto prompt = ApplyLlama3ChatTemplate(*SmallTokenizer(), {{ChatRole::kUser, "ab"}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  std::vector<TokenId> expected = {kBeginOfText, kStartHeader, 'u',  's', 'e',        'r',
                                   kEndHeader,   '\n',         '\n', kAb, kEndOfTurn, kStartHeader};
  for (const char letter : std::string("assistant")) expected.push_back(letter);
  expected.insert(expected.end(), {kEndHeader, '\n', '\n'});
  EXPECT_THAT(prompt->ids, ElementsAreArray(expected));
  EXPECT_EQ(prompt->last_instruction_position, 9);
  EXPECT_EQ(prompt->tail_length, static_cast<int>(expected.size()) - 10);
}

TEST(ApplyLlama3ChatTemplate, RefusesATokenizerWithoutThem) {
  auto tokenizer_json = SmallTokenizerJson();
  tokenizer_json["added_tokens"][3]["special"] = false;
  const auto tokenizer = LoadTokenizer(tokenizer_json);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto status = ApplyLlama3ChatTemplate(**tokenizer, {{ChatRole::kUser, "ab"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("<|eot_id|>"));
}

}  // namespace
}  // namespace mechinterp::engine
