// Threads that put, get, list and delete at the same time, with memory and disk for a part of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/services/model/store/store_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using StoreThreads = StoreTest;

// What one client does with runs of its own; every run that it gets is the one that it put.
void UseStore(ActivationStore& store, unsigned thread, std::atomic<int>& served) {
  const std::string owner = "client " + std::to_string(thread);
  std::mt19937 random(thread);
  std::vector<std::pair<std::string, unsigned>> mine;
  for (int step = 0; step < 400; ++step) {
    const unsigned what = random() % 10;
    if (what < 3 || mine.empty()) {
      const unsigned seed = random() % 1000;
      const auto handle = store.Put(owner, RandomRun(seed), absl::Hours(1));
      if (handle.ok()) mine.emplace_back(*handle, seed);
      continue;
    }
    const size_t at = random() % mine.size();
    if (what < 8) {
      const auto entry = store.Get(owner, mine[at].first);
      ASSERT_THAT(entry, IsOk());
      EXPECT_TRUE(SameBits(*entry->run, *RandomRun(mine[at].second)));
      ++served;
    } else if (what == 8) {
      EXPECT_THAT(store.Delete(owner, mine[at].first), IsOk());
      mine.erase(mine.begin() + static_cast<long>(at));
    } else {
      EXPECT_EQ(store.List(owner).size(), mine.size());
    }
  }
  for (const auto& [handle, seed] : mine) EXPECT_THAT(store.Delete(owner, handle), IsOk());
}

TEST_F(StoreThreads, EachGetsItsOwn) {
  const auto store = MakeStore(150'000, 600'000);
  std::atomic<int> served = 0;
  std::atomic<bool> done = false;
  std::thread housekeeping([&] {
    while (!done) {
      store->Tidy();
      store->FreeMemory(20'000);
      EXPECT_LE(metrics_.memory_bytes.Value(), 150'000);
      EXPECT_LE(metrics_.disk_bytes.Value(), 600'000);
    }
  });
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < 4; ++i) clients.emplace_back([&, i] { UseStore(*store, i, served); });
  for (std::thread& client : clients) client.join();
  done = true;
  housekeeping.join();
  store->Tidy();
  EXPECT_GT(served, 400);
  EXPECT_GT(metrics_.loads.Value(), 10);
  EXPECT_EQ(metrics_.damaged.Value(), 0);
  EXPECT_EQ(store->memory_bytes(), 0);
  EXPECT_EQ(store->disk_bytes(), 0);
  EXPECT_EQ(FileCount(), 0);
}

// Many who want the same run read it once.
TEST_F(StoreThreads, ARunIsReadOnceForAllWhoWantIt) {
  const auto store = MakeStore(1 << 20);
  const std::string handle = *store->Put("", RandomRun(1), absl::Hours(1));
  store->FreeMemory(1 << 30);
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back([&] { EXPECT_THAT(store->Get("", handle), IsOk()); });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(metrics_.loads.Value(), 1);
}

// A run in memory is served while another is read: that one waits, at its reservation, until it
// has been.
TEST_F(StoreThreads, RunsInMemoryDoNotWaitForTheDisk) {
  const auto store = MakeStore(1 << 20);
  const std::string on_disk = *store->Put("", RandomRun(1), absl::Hours(1));
  store->FreeMemory(1 << 30);
  const std::string in_memory = *store->Put("", RandomRun(2), absl::Hours(1));
  std::atomic<bool> reading = false, served = false;
  store->set_reserve([&](int64_t) -> absl::StatusOr<MemoryBudget::Reservation> {
    reading = true;
    while (!served) std::this_thread::yield();
    return MemoryBudget::Reservation();
  });
  std::thread reader([&] { EXPECT_THAT(store->Get("", on_disk), IsOk()); });
  while (!reading) std::this_thread::yield();
  EXPECT_THAT(store->Get("", in_memory), IsOk());
  EXPECT_EQ(store->List("").size(), 2u);
  served = true;
  reader.join();
}

}  // namespace
}  // namespace mechinterp
