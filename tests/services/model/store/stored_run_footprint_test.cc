// The quota counts what runs take, not only their values.

#include <gtest/gtest.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "tests/services/model/store/store_fixture.h"
#include "tests/status_matchers.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ABSTRACT_OWN_ALLOCATOR 1
#endif

namespace mechinterp {
namespace {

using StoredRunFootprint = StoreTest;

TEST_F(StoredRunFootprint, ASmallRunTakesFarMoreThanItsValues) {
  const auto run = StreamRun(1);
  EXPECT_EQ(ByteCount(*run), 64);
  EXPECT_GT(BytesOf(*run), 500);
  EXPECT_LT(BytesOf(*run), 2000);
}

TEST_F(StoredRunFootprint, AQuotaHoldsSoManyAndNoMore) {
  const int64_t quota = 10 * BytesOf(*StreamRun(1));
  const auto store = MakeMemoryStore(quota);
  int kept = 0;
  while (store->Put("", StreamRun(1), absl::Hours(1)).ok()) ++kept;
  EXPECT_EQ(kept, 10);
  EXPECT_EQ(store->memory_bytes(), quota);
}

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33) && !defined(ABSTRACT_OWN_ALLOCATOR)
int64_t AllocatedBytes() {
  const struct mallinfo2 info = ::mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
}

// What is counted against what the allocator says: runs of one small site, and of many.
TEST_F(StoredRunFootprint, IsWhatTheAllocatorSays) {
  for (const bool many_sites : {false, true}) {
    const auto store = MakeMemoryStore(int64_t{1} << 40);
    const int64_t before = AllocatedBytes();
    for (unsigned i = 0; i < 2000; ++i) {
      ASSERT_THAT(store->Put("", many_sites ? RandomRun(i) : StreamRun(1), absl::Hours(1)), IsOk());
    }
    const auto taken = static_cast<double>(AllocatedBytes() - before);
    const auto counted = static_cast<double>(store->memory_bytes());
    EXPECT_GT(counted, 0.95 * taken) << many_sites;
    EXPECT_LT(counted, 1.1 * taken) << many_sites;
  }
}
#endif

}  // namespace
}  // namespace mechinterp
