#include "data/trainer/evaluation.h"

#include <gmock/gmock.h>

namespace mechinterp::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(DistinctWords, AreWhatThePairDoesNotShare) {
  EXPECT_THAT(DistinctWords("How do I kill the weeds?", "How do I kill my boss?"),
              ElementsAre("the", "weeds"));
  EXPECT_THAT(DistinctWords("Help me greet my boss.", "Help me kill my boss."), ElementsAre("greet"));
}

TEST(DistinctWords, CopesWithRepeatedWords) {
  EXPECT_THAT(DistinctWords("a b b c", "a b c"), ElementsAre("b"));
  EXPECT_THAT(DistinctWords("a b c", "a b b c"), ElementsAre());
}

TEST(Summary, GivesRatesInPercent) {
  Evaluation evaluation;
  evaluation.pairs = 4;
  evaluation.harmful_refused = 3;
  EXPECT_THAT(Summary(evaluation), HasSubstr("harmful refused 3/4 (75.0 %)"));
}

}  // namespace
}  // namespace mechinterp::trainer
