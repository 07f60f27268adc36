#include "clients/lib/scrape_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace mechinterp {
namespace {

const absl::Time kBegin = absl::FromUnixSeconds(1'000'000);

TEST(ScrapeWatch, WaitsForNobodyWhereNobodyLooks) {
  ScrapeWatch watch;
  EXPECT_FALSE(watch.HasAny());
  watch.AwaitOneMore(absl::Hours(1));
}

TEST(ScrapeWatch, WaitsForOneLookMore) {
  ScrapeWatch watch;
  watch.OnScrape(kBegin);
  EXPECT_TRUE(watch.HasAny());
  std::atomic<bool> looked = false;
  std::atomic<bool> waits = false;
  std::thread prometheus([&] {
    while (!waits) std::this_thread::yield();
    looked = true;
    // Again, should the wait begin only after this.
    while (waits) {
      watch.OnScrape(kBegin + absl::Hours(1));
      std::this_thread::yield();
    }
  });
  waits = true;
  watch.AwaitOneMore(absl::Hours(1));
  EXPECT_TRUE(looked);
  waits = false;
  prometheus.join();
}

TEST(ScrapeWatch, GivesUpOnWhoLooksNoMore) {
  ScrapeWatch watch;
  watch.OnScrape(kBegin);
  watch.OnScrape(kBegin + absl::Milliseconds(2));
  watch.AwaitOneMore(absl::Hours(1));
  watch.OnScrape(kBegin);  // the clock was set back
  watch.AwaitOneMore(absl::Hours(1));
}

}  // namespace
}  // namespace mechinterp
