#include "services/engine/kernels/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace mechinterp::engine::kernels {
namespace {

class ParallelForTest : public testing::TestWithParam<int> {
 protected:
  ParallelForTest() { SetThreadCount(GetParam()); }
  ~ParallelForTest() override { SetThreadCount(before_); }
  const int before_ = ThreadCount();
};

TEST_P(ParallelForTest, CoversTheRangeOnce) {
  for (int64_t count : {0, 1, 7, 64, 1001}) {
    for (int64_t grain : {1, 3, 2000}) {
      std::vector<std::atomic<int>> visits(count);
      ParallelFor(5, 5 + count, grain, [&](int64_t first, int64_t last) {
        EXPECT_LT(first, last);
        for (int64_t i = first; i < last; ++i) ++visits[i - 5];
      });
      for (const auto& visit : visits) EXPECT_EQ(visit, 1);
    }
  }
}

TEST_P(ParallelForTest, ManyShortLoopsFollowEachOther) {
  std::atomic<int64_t> total = 0;
  for (int i = 0; i < 20000; ++i) {
    ParallelFor(0, 8, 1, [&](int64_t first, int64_t last) { total += last - first; });
  }
  EXPECT_EQ(total, 160000);
}

TEST_P(ParallelForTest, ALoopInALoopRunsInItsThread) {
  std::atomic<int> total = 0;
  ParallelFor(0, 16, 1, [&](int64_t first, int64_t last) {
    const auto outer = std::this_thread::get_id();
    ParallelFor(0, 10, 1, [&](int64_t a, int64_t b) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      total += static_cast<int>((b - a) * (last - first));
    });
  });
  EXPECT_EQ(total, 160);
}

TEST_P(ParallelForTest, LoopsOfSeveralThreadsDoNotMix) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        std::atomic<int64_t> sum = 0;
        ParallelFor(0, 100, 1, [&](int64_t first, int64_t last) {
          for (int64_t k = first; k < last; ++k) sum += k;
        });
        if (sum != 4950) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(ParallelForTest, AnExceptionArrivesAtTheCallerAndThePoolGoesOn) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_THROW(ParallelFor(0, 100, 1,
                             [](int64_t first, int64_t last) {
                               if (first <= 50 && 50 < last) throw std::runtime_error("50");
                             }),
                 std::runtime_error);
  }
  std::atomic<int64_t> total = 0;
  ParallelFor(0, 100, 1, [&](int64_t first, int64_t last) { total += last - first; });
  EXPECT_EQ(total, 100);
}

INSTANTIATE_TEST_SUITE_P(Threads, ParallelForTest, testing::Values(1, 2, 5));

}  // namespace
}  // namespace mechinterp::engine::kernels
