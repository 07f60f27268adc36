#include "services/model/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/common/status.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;

class MemoryBudgetTest : public testing::Test {
 protected:
  // 1000 bytes, 400 of them always taken.
  MemoryBudget budget_{1000, 400, [this] { return stored_; }};
  int64_t stored_ = 0;
};

TEST_F(MemoryBudgetTest, AReservationIsGivenBackWhenItGoes) {
  {
    const auto all = budget_.Reserve(600);
    ASSERT_THAT(all, IsOk());
    EXPECT_EQ(budget_.reserved_bytes(), 600);
    EXPECT_FALSE(budget_.Reserve(1).ok());
  }
  EXPECT_EQ(budget_.reserved_bytes(), 0);
  EXPECT_THAT(budget_.Reserve(600), IsOk());
}

TEST_F(MemoryBudgetTest, AMovedReservationIsGivenBackOnce) {
  {
    MemoryBudget::Reservation kept;
    auto reserved = budget_.Reserve(100);
    ASSERT_THAT(reserved, IsOk());
    kept = *std::move(reserved);
  }
  EXPECT_EQ(budget_.reserved_bytes(), 0);
}

TEST_F(MemoryBudgetTest, WhatOthersHoldIsWorthWaitingFor) {
  const auto other = budget_.Reserve(500);
  const absl::Status refused = budget_.Reserve(200).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "MEMORY_LIMIT");
  EXPECT_TRUE(RetryDelay(refused).has_value());
}

TEST_F(MemoryBudgetTest, WhatNeverFitsIsNot) {
  const absl::Status refused = budget_.Reserve(601).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(RetryDelay(refused).has_value());
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--memory-limit"));
}

TEST_F(MemoryBudgetTest, NorIsWhatStoredActivationsHold) {
  stored_ = 500;
  const absl::Status refused = budget_.Reserve(200).status();
  EXPECT_FALSE(RetryDelay(refused).has_value());
  EXPECT_THAT(std::string(refused.message()), HasSubstr("stored activations hold"));
  EXPECT_THAT(budget_.Reserve(100), IsOk());
}

TEST_F(MemoryBudgetTest, StoredActivationsMakeWayWhereThatHelps) {
  stored_ = 300;
  std::vector<int64_t> asked;
  budget_.set_free_memory([&](int64_t bytes) {
    asked.push_back(bytes);
    stored_ -= bytes;
  });
  const auto first = budget_.Reserve(400);
  EXPECT_THAT(first, IsOk());
  EXPECT_THAT(asked, testing::ElementsAre(100));
  EXPECT_FALSE(budget_.Reserve(201).ok());  // the first request holds it
  EXPECT_FALSE(budget_.Reserve(601).ok());
  EXPECT_THAT(asked, testing::ElementsAre(100));
}

TEST(MemoryBudget, WithoutALimitOnlyCounts) {
  MemoryBudget budget(0, 400, [] { return int64_t{0}; });
  const auto reserved = budget.Reserve(int64_t{1} << 60);
  ASSERT_THAT(reserved, IsOk());
  EXPECT_EQ(budget.reserved_bytes(), int64_t{1} << 60);
}

}  // namespace
}  // namespace mechinterp
