#include "clients/lib/selectors.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParsePositions, ReadsIndicesRangesAndNames) {
  const auto selector = ParsePositions("3, -1,0:5,-6:,:-2,tail");
  ASSERT_THAT(selector, IsOk());
  EXPECT_THAT(selector->indices(), ElementsAre(3, -1));
  ASSERT_EQ(selector->ranges_size(), 3);
  EXPECT_EQ(selector->ranges(0).end(), 5);
  EXPECT_EQ(selector->ranges(1).start(), -6);
  EXPECT_FALSE(selector->ranges(1).has_end());
  EXPECT_EQ(selector->ranges(2).end(), -2);
  EXPECT_THAT(selector->named(), ElementsAre(v1::NAMED_POSITION_TEMPLATE_TAIL));
}

TEST(ParsePositions, DecisionIsTheLastInstructionTokenAndTheTail) {
  EXPECT_THAT(ParsePositions("decision")->named(),
              ElementsAre(v1::NAMED_POSITION_LAST_INSTRUCTION, v1::NAMED_POSITION_TEMPLATE_TAIL));
}

TEST(ParsePositions, AllIsEmpty) {
  EXPECT_EQ(ParsePositions("all")->ByteSizeLong(), 0u);
  EXPECT_EQ(ParsePositions("")->ByteSizeLong(), 0u);
}

TEST(ParsePositions, NamesThePartAtFault) {
  const auto selector = ParsePositions("1,two");
  EXPECT_TRUE(absl::IsInvalidArgument(selector.status()));
  EXPECT_THAT(std::string(selector.status().message()), HasSubstr("\"two\""));
}

TEST(ParsePositions, TakesAnEmptyPartForAWordLeftOut) {
  for (const char* text : {",", " ", "1,,2", "1,", ":,"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParsePositions(text).status())) << text;
  }
}

TEST(ParseIndices, ExpandsRanges) { EXPECT_THAT(*ParseIndices("0,2,5:8"), ElementsAre(0, 2, 5, 6, 7)); }

TEST(ParseIndices, RejectsWhatIsNotAnIndex) {
  for (const char* text : {"-1", "5:5", "a", "1:", "0:99999999", ",", "1,,2"})
    EXPECT_FALSE(ParseIndices(text).ok()) << text;
}

}  // namespace
}  // namespace mechinterp
