#include "clients/experiments/baseline.h"

#include "clients/experiments/summaries.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/experiments/study_fixture.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using testing::ToyJudge;
using testing::ToyPairs;

BaselineOptions Options() {
  BaselineOptions options;
  options.pairs = ToyPairs();
  options.judge = ToyJudge();
  return options;
}

class BaselineTest : public testing::StudyTest {};

TEST_F(BaselineTest, CountsRefusalsByClassAndCategory) {
  const auto results = RunBaseline(context_, Options());
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->harmful().success_count(), 2u);
  EXPECT_EQ(results->harmful().total_count(), 2u);
  EXPECT_EQ(results->harmful_at_start().rate(), 1);
  EXPECT_EQ(results->harmless().success_count(), 0u);
  ASSERT_EQ(results->categories_size(), 2);
  EXPECT_EQ(results->categories(0).category(), "weapons");
  EXPECT_EQ(results->categories(0).harmful().total_count(), 1u);
  EXPECT_EQ(results->provenance().model().name(), "toy");
  EXPECT_EQ(results->provenance().pair_count(), 2u);
}

TEST_F(BaselineTest, TakesTheMetricsOfTheRunItGenerates) {
  const auto results = RunBaseline(context_, Options());
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->responses_size(), 4);
  // 8 x strength - 4.5; the fake's log-odds are 1 below.
  const double expected[] = {3.5, -4.5, 11.5, -4.5};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(results->responses(i).logit_difference(), expected[i]) << i;
    EXPECT_EQ(results->responses(i).refusal_log_odds(), expected[i] - 1) << i;
  }
  EXPECT_EQ(fake_.service.call_count("Generate"), 4);
  EXPECT_EQ(fake_.service.call_count("RunWithCache"), 0);
  EXPECT_EQ(results->responses(0).response(), testing::kRefusal);
  EXPECT_EQ(results->responses(0).matched_phrase(), "I cannot");
  EXPECT_EQ(results->responses(1).response(), testing::kAnswer);
}

TEST_F(BaselineTest, GoesOnFromItsJournal) {
  const testing::TestFolder folder;
  const BaselineOptions options = Options();
  const Fingerprint fingerprint = BaselineFingerprint(context_, options);
  {
    const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
    ASSERT_THAT(journal, IsOk());
    context_.journal = journal->get();
    context_.concurrency = 1;
    fake_.service.FailNext("Generate", {absl::OkStatus(), absl::OkStatus(), absl::InternalError("killed")});
    EXPECT_FALSE(RunBaseline(context_, options).ok());
  }
  const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ((*journal)->resumed_part_count(), 2);
  context_.journal = journal->get();
  const auto results = RunBaseline(context_, options);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->responses_size(), 4);
  EXPECT_EQ(results->harmful().success_count(), 2u);
  EXPECT_EQ(fake_.service.call_count("Generate"), 5);  // Three before, two more.
}

TEST_F(BaselineTest, NoticesAnotherModel) {
  fake_.service.set_model_hash("another");
  const auto results = RunBaseline(context_, Options());
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("was it restarted"));
}

TEST_F(BaselineTest, NoticesOtherArithmetic) {
  fake_.service.set_compute_type(v1::COMPUTE_TYPE_FLOAT16);
  const auto results = RunBaseline(context_, Options());
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("compute type was COMPUTE_TYPE_FLOAT32, now COMPUTE_TYPE_FLOAT16; was it restarted"));
}

TEST_F(BaselineTest, NeedsAServerThatMeasures) {
  fake_.service.set_gives_metrics(false);
  const auto results = RunBaseline(context_, Options());
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("metrics"));
}

TEST_F(BaselineTest, NeedsAChatTemplate) {
  context_.model.set_has_chat_template(false);
  EXPECT_TRUE(absl::IsFailedPrecondition(RunBaseline(context_, Options()).status()));
}

TEST_F(BaselineTest, FingerprintTellsWhatChanged) {
  BaselineOptions changed = Options();
  changed.max_new_tokens = 3;
  EXPECT_NE(BaselineFingerprint(context_, Options()), BaselineFingerprint(context_, changed));
  changed = Options();
  changed.pairs[0].harmful += "!";
  EXPECT_NE(BaselineFingerprint(context_, Options()), BaselineFingerprint(context_, changed));
}

TEST(MakeRate, IsTheWilsonInterval) {
  // 15 of 15: lower bound n / (n + z^2), z the normal quantile of 97.5 %.
  const v1::Rate rate = MakeRate(15, 15);
  EXPECT_EQ(rate.rate(), 1);
  EXPECT_NEAR(rate.lower(), 15 / (15 + 1.959964 * 1.959964), 1e-6);
  EXPECT_NEAR(rate.upper(), 1, 1e-12);
  EXPECT_EQ(MakeRate(0, 0).rate(), 0);
}

}  // namespace
}  // namespace mechinterp
