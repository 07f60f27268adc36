// What the store promises with a clock that stands still: whose runs they are, how long they stay,
// where they lie and what gives way to what.

#include "services/model/activation_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "services/common/status.h"
#include "tests/services/model/store/store_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using ActivationStoreTest = StoreTest;

void ExpectUnknown(const absl::Status& status, const std::string& handle) {
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorReason(status), "ACTIVATION_NOT_FOUND");
  EXPECT_EQ(status.message(), "no activations are stored under '" + handle + "'; they may have expired");
}

void ExpectFull(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), "ACTIVATION_STORE_FULL");
}

// Which of the handles lie in memory, as a list tells it.
std::vector<bool> InMemory(ActivationStore& store) {
  std::vector<bool> in_memory;
  for (const ActivationStore::Entry& entry : store.List("")) in_memory.push_back(entry.run != nullptr);
  return in_memory;
}

TEST_F(ActivationStoreTest, KeepsARunUntilItIsUnusedForItsTime) {
  const auto store = MakeMemoryStore(1 << 20);
  const std::string handle = *store->Put("", StreamRun(1), absl::Seconds(10));
  now_ += absl::Seconds(9);
  EXPECT_THAT(store->Get("", handle), IsOk());  // prolongs it
  now_ += absl::Seconds(9);
  EXPECT_THAT(store->Get("", handle), IsOk());
  now_ += absl::Seconds(10);
  ExpectUnknown(store->Get("", handle).status(), handle);
  EXPECT_TRUE(store->List("").empty());
}

TEST_F(ActivationStoreTest, ExpiredRunsGoWithoutAnybodyAsking) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 3 / 2);
  store->Put("", StreamRun(40), absl::Seconds(10)).value();
  store->Put("", StreamRun(40), absl::Seconds(20)).value();  // spills the first
  EXPECT_EQ(FileCount(), 1);
  now_ += absl::Seconds(10);
  store->Tidy();
  EXPECT_EQ(metrics_.runs.Value(), 1);
  EXPECT_EQ(metrics_.disk_bytes.Value(), 0);
  EXPECT_EQ(FileCount(), 0);
  now_ += absl::Seconds(10);
  store->Tidy();
  EXPECT_EQ(metrics_.runs.Value(), 0);
  EXPECT_EQ(metrics_.memory_bytes.Value(), 0);
}

TEST_F(ActivationStoreTest, AThreadOfItsOwnTidies) {
  ActivationStore store({1 << 20, 0, nullptr, absl::Microseconds(100)}, metrics_, absl::Now);
  store.Put("", StreamRun(1), absl::Microseconds(1)).value();
  while (metrics_.runs.Value() > 0) std::this_thread::yield();
}

TEST_F(ActivationStoreTest, RefusesWhatDoesNotFitUntilSomethingIsDeleted) {
  const auto run = StreamRun(10);
  const auto store = MakeMemoryStore(BytesOf(*run));
  const std::string first = *store->Put("", run, absl::Hours(1));
  EXPECT_EQ(metrics_.memory_bytes.Value(), BytesOf(*run));
  ExpectFull(store->Put("", StreamRun(1), absl::Hours(1)).status());
  EXPECT_THAT(store->Get("", first), IsOk());
  EXPECT_THAT(store->Delete("", first), IsOk());
  EXPECT_THAT(store->Put("", run, absl::Hours(1)), IsOk());
  ExpectUnknown(store->Delete("", first), first);
}

TEST_F(ActivationStoreTest, HandlesAreDistinctAndListedInOrder) {
  const auto store = MakeMemoryStore(1 << 20);
  const std::string first = *store->Put("", StreamRun(1), absl::Hours(1));
  now_ += absl::Seconds(1);
  const std::string second = *store->Put("", StreamRun(1), absl::Hours(1));
  EXPECT_NE(first, second);
  ASSERT_EQ(store->List("").size(), 2u);
  EXPECT_EQ(store->List("")[0].info->handle, first);
}

TEST_F(ActivationStoreTest, AnothersHandleIsAsUnknownAsNone) {
  const auto store = MakeMemoryStore(1 << 20);
  const std::string handle = *store->Put("alice", StreamRun(1), absl::Hours(1));
  for (const char* const other : {"bob", ""}) {
    ExpectUnknown(store->Get(other, handle).status(), handle);
    ExpectUnknown(store->Delete(other, handle), handle);
    EXPECT_TRUE(store->List(other).empty());
  }
  ExpectUnknown(store->Get("alice", "act-0").status(), "act-0");
  EXPECT_THAT(store->Get("alice", handle), IsOk());
  EXPECT_EQ(store->List("alice").size(), 1u);
  EXPECT_THAT(store->Delete("alice", handle), IsOk());
}

TEST_F(ActivationStoreTest, TheLeastRecentlyUsedLeavesMemoryFirst) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 5 / 2);
  std::vector<std::string> handles;
  for (int i = 0; i < 2; ++i) {
    handles.push_back(*store->Put("", StreamRun(40, static_cast<float>(i)), absl::Hours(1)));
    now_ += absl::Seconds(1);
  }
  EXPECT_THAT(store->Get("", handles[0]), IsOk());
  handles.push_back(*store->Put("", StreamRun(40, 2), absl::Hours(1)));
  EXPECT_THAT(InMemory(*store), ElementsAre(true, false, true));
  EXPECT_EQ(metrics_.spills.Value(), 1);
  // What is read comes back to memory, for the one that was used longest ago.
  const auto entry = store->Get("", handles[1]);
  ASSERT_THAT(entry, IsOk());
  EXPECT_TRUE(SameBits(*entry->run, *StreamRun(40, 1)));
  EXPECT_THAT(InMemory(*store), ElementsAre(false, true, true));
  // It has kept its file, and is not written again.
  EXPECT_THAT(store->Get("", handles[2]), IsOk());
  EXPECT_THAT(store->Get("", handles[0]), IsOk());
  EXPECT_THAT(InMemory(*store), ElementsAre(true, false, true));
  EXPECT_EQ(metrics_.spills.Value(), 2);
  EXPECT_EQ(metrics_.loads.Value(), 2);
  EXPECT_EQ(metrics_.runs.Value(), 3);
}

TEST_F(ActivationStoreTest, RandomRunsComeBackBitForBit) {
  std::vector<std::string> handles;
  const auto store = MakeStore(500'000);
  for (unsigned seed = 0; seed < 300; ++seed) {
    handles.push_back(*store->Put("", RandomRun(seed), absl::Hours(1)));
  }
  EXPECT_GT(metrics_.spills.Value(), 50);
  for (unsigned seed = 0; seed < 300; ++seed) {
    const auto entry = store->Get("", handles[seed]);
    ASSERT_THAT(entry, IsOk());
    EXPECT_TRUE(SameBits(*entry->run, *RandomRun(seed))) << seed;
    // What the budget was asked for is what the run takes.
    EXPECT_EQ(RunFootprintBytes(*entry->info), FootprintBytes(*entry->run)) << seed;
  }
  EXPECT_LE(metrics_.memory_bytes.Value(), 500'000);
}

TEST_F(ActivationStoreTest, ARunLargerThanAllOfMemoryGoesStraightToTheDisk) {
  const auto run = StreamRun(60);
  const auto store = MakeStore(IndexBytesOf(*run) + 100);
  const auto handle = store->Put("", run, absl::Hours(1));
  ASSERT_THAT(handle, IsOk());
  EXPECT_THAT(InMemory(*store), ElementsAre(false));
  const auto entry = store->Get("", *handle);
  ASSERT_THAT(entry, IsOk());
  EXPECT_TRUE(SameBits(*entry->run, *run));
  EXPECT_THAT(InMemory(*store), ElementsAre(false));
  EXPECT_EQ(store->memory_bytes(), BytesOf(*run));           // as long as it is held
  ExpectFull(store->Put("", run, absl::Hours(1)).status());  // not even for its entry
  EXPECT_EQ(FileCount(), 1);
}

TEST_F(ActivationStoreTest, WithBothPlacesFullTheNewRunIsRefusedAndTheOldOnesStay) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 2, 2 * 4096);
  std::vector<std::string> handles;
  absl::Status status;
  while (true) {
    const auto handle = store->Put("", StreamRun(40, static_cast<float>(handles.size())), absl::Hours(1));
    status = handle.status();
    if (!status.ok()) break;
    handles.push_back(*handle);
  }
  ExpectFull(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("its share of the disk has 0 bytes left"));
  EXPECT_EQ(handles.size(), 3u);
  for (size_t i = 0; i < handles.size(); ++i) {
    const auto entry = store->Get("", handles[i]);
    ASSERT_THAT(entry, IsOk());
    EXPECT_TRUE(SameBits(*entry->run, *StreamRun(40, static_cast<float>(i))));
  }
  EXPECT_THAT(store->Delete("", handles[0]), IsOk());
  EXPECT_THAT(store->Put("", StreamRun(40), absl::Hours(1)), IsOk());
}

TEST_F(ActivationStoreTest, AReadRunReservesItsMemoryFirst) {
  const auto run = StreamRun(60);
  const auto store = MakeStore(IndexBytesOf(*run) * 2 + 100);
  const std::string handle = *store->Put("", run, absl::Hours(1));
  int64_t asked = 0, limit = 0;
  MemoryBudget budget(1'000'000, 0, [&] { return store->memory_bytes(); });
  store->set_reserve([&](int64_t bytes) -> absl::StatusOr<MemoryBudget::Reservation> {
    asked = bytes;
    if (bytes > limit) return TryAgainLater("no", "MEMORY_LIMIT", absl::Seconds(1));
    return budget.Reserve(bytes);
  });
  const absl::Status refused = store->Get("", handle).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "MEMORY_LIMIT");
  EXPECT_EQ(metrics_.loads.Value(), 0);
  limit = 1'000'000;
  {
    const auto entry = store->Get("", handle);
    ASSERT_THAT(entry, IsOk());
    EXPECT_EQ(asked, FootprintBytes(*entry->run));
    EXPECT_EQ(budget.reserved_bytes(), 0);  // the run counts itself
    EXPECT_EQ(store->memory_bytes(), BytesOf(*run));
  }
  EXPECT_EQ(store->memory_bytes(), IndexBytesOf(*run));
}

TEST_F(ActivationStoreTest, ARunThatIsHeldCountsThoughItIsDeleted) {
  const auto run = StreamRun(40);
  const auto store = MakeMemoryStore(1 << 20);
  const std::string handle = *store->Put("", run, absl::Hours(1));
  {
    const auto entry = store->Get("", handle);
    EXPECT_THAT(store->Delete("", handle), IsOk());
    EXPECT_EQ(store->memory_bytes(), FootprintBytes(*run));
    EXPECT_TRUE(SameBits(*entry->run, *run));
  }
  EXPECT_EQ(store->memory_bytes(), 0);
}

TEST_F(ActivationStoreTest, RequestsThatLackMemoryMoveRunsToTheDisk) {
  const auto store = MakeStore(1 << 20);
  const int64_t one = BytesOf(*StreamRun(40));
  for (int i = 0; i < 4; ++i) store->Put("", StreamRun(40, static_cast<float>(i)), absl::Hours(1)).value();
  MemoryBudget budget(4 * one, 0, [&] { return store->memory_bytes(); });
  EXPECT_FALSE(budget.Reserve(one).ok());
  budget.set_free_memory([&](int64_t bytes) { store->FreeMemory(bytes); });
  EXPECT_THAT(budget.Reserve(one), IsOk());
  EXPECT_THAT(InMemory(*store), testing::Not(ElementsAre(true, true, true, true)));
  EXPECT_FALSE(budget.Reserve(4 * one + 1).ok());
}

TEST_F(ActivationStoreTest, DeletingTakesTheFileAway) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 3 / 2);
  const std::string handle = *store->Put("", StreamRun(40), absl::Hours(1));
  store->Put("", StreamRun(40), absl::Hours(1)).value();
  ASSERT_EQ(FileCount(), 1);
  EXPECT_THAT(store->Delete("", handle), IsOk());
  EXPECT_EQ(FileCount(), 0);
  EXPECT_EQ(store->disk_bytes(), 0);
}

TEST_F(ActivationStoreTest, ADamagedFileIsReportedAndNeverServed) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 3 / 2);
  const std::string handle = *store->Put("", StreamRun(40), absl::Hours(1));
  store->Put("", StreamRun(40), absl::Hours(1)).value();
  {
    std::fstream file(PathOf(handle), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-200, std::ios::end);
    file.put('x');
  }
  for (int i = 0; i < 2; ++i) {
    const absl::Status status = store->Get("", handle).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(ErrorReason(status), "ACTIVATION_DAMAGED");
    EXPECT_THAT(std::string(status.message()), HasSubstr(handle));
  }
  EXPECT_EQ(metrics_.damaged.Value(), 1);
  EXPECT_EQ(FileCount(), 0);
  EXPECT_EQ(store->List("").size(), 1u);  // the other one
  ExpectUnknown(store->Get("bob", handle).status(), handle);
  EXPECT_THAT(store->Delete("", handle), IsOk());
}

TEST_F(ActivationStoreTest, AFileThatIsGoneIsLost) {
  const auto store = MakeStore(BytesOf(*StreamRun(40)) * 3 / 2);
  const std::string handle = *store->Put("", StreamRun(40), absl::Hours(1));
  store->Put("", StreamRun(40), absl::Hours(1)).value();
  ASSERT_EQ(::unlink(PathOf(handle).c_str()), 0);
  EXPECT_EQ(store->Get("", handle).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace mechinterp
