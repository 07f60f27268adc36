#include "services/model/scheduler.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/services/model/engine/fixture.h"

namespace mechinterp {
namespace {

class SchedulerTest : public testing::Test {
 protected:
  engine::Fixture fixture_{"llama3-gqa"};
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
};

TEST_F(SchedulerTest, TurnsAwayWhatIsTooMuchAndTakesItLater) {
  Scheduler scheduler(fixture_.model(), {.max_requests = 2}, metrics_);
  auto first = scheduler.Admit();
  {
    const auto second = scheduler.Admit();
    EXPECT_TRUE(second.ok());
    EXPECT_EQ(scheduler.Admit().status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(metrics_.requests_in_progress.Value(), 2);
  }
  EXPECT_TRUE(scheduler.Admit().ok());
}

TEST_F(SchedulerTest, RunsWhatManyThreadsAskFor) {
  Scheduler scheduler(fixture_.model(), {.max_requests = 2, .max_batch_rows = 20}, metrics_);
  engine::Segment reference;
  reference.tokens = fixture_.prompt("a").ids;
  reference.logits_rows = engine::LogitsRows::kLast;
  engine::Segment* const one[] = {&reference};
  ASSERT_TRUE(engine::Forward(*fixture_.model(), one).ok());

  std::vector<std::thread> threads;
  std::vector<std::vector<float>> logits(12);
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        engine::Segment segment;
        segment.tokens = reference.tokens;
        segment.logits_rows = engine::LogitsRows::kLast;
        engine::Segment* const mine[] = {&segment};
        EXPECT_TRUE(scheduler.Run(mine, nullptr).ok());
        logits[i] = segment.logits.values;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& values : logits) EXPECT_EQ(values, reference.logits.values);
}

}  // namespace
}  // namespace mechinterp
