#include "services/engine/forward/kv_cache.h"

#include <c10/core/Allocator.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <memory>
#include <new>
#include <numeric>
#include <vector>

namespace mechinterp::engine {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.layers.resize(2);
  config.key_value_head_count = 3;
  config.head_size = 4;
  return config;
}

TEST(KvCache, KeepsWhatIsAppendedInOrder) {
  KvCache cache(Config());
  std::vector<float> keys(5 * 12), values(5 * 12);
  std::iota(keys.begin(), keys.end(), 0.f);
  std::iota(values.begin(), values.end(), 1000.f);
  cache.Append(1, keys.data(), values.data(), 2);
  cache.Append(1, keys.data() + 24, values.data() + 24, 3);
  EXPECT_EQ(cache.row_size(), 12);
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(cache.length(1), 5);
  EXPECT_EQ(std::vector<float>(cache.keys(1), cache.keys(1) + 60), keys);
  EXPECT_EQ(std::vector<float>(cache.values(1), cache.values(1) + 60), values);
}

TEST(KvCache, MovesNothingWithinWhatWasReserved) {
  KvCache cache(Config());
  cache.Reserve(100);
  const std::vector<float> row(12, 1.f);
  cache.Append(0, row.data(), row.data(), 1);
  const float* const keys = cache.keys(0);
  const float* const values = cache.values(0);
  for (int i = 1; i < 100; ++i) cache.Append(0, row.data(), row.data(), 1);
  EXPECT_EQ(cache.keys(0), keys);
  EXPECT_EQ(cache.values(0), values);
  cache.Append(0, row.data(), row.data(), 1);  // what was not foreseen works too
  EXPECT_EQ(cache.length(0), 101);
}

// Rows of so many positions, each of its own value.
std::vector<float> Rows(int positions, float first) {
  std::vector<float> rows(positions * 12);
  std::iota(rows.begin(), rows.end(), first);
  return rows;
}

std::shared_ptr<KvCache> Filled(int positions, float first) {
  auto cache = std::make_shared<KvCache>(Config());
  const std::vector<float> keys = Rows(positions, first), values = Rows(positions, -first);
  for (int layer = 0; layer < 2; ++layer) cache->Append(layer, keys.data(), values.data(), positions);
  return cache;
}

std::vector<float> Keys(const KvCache& cache, int layer) {
  return {cache.keys(layer), cache.keys(layer) + cache.length(layer) * cache.row_size()};
}

TEST(KvCache, ForgetsWhatIsTruncatedAndTakesMore) {
  const int64_t before = KvCache::total_bytes();
  const auto cache = Filled(5, 100);
  const int64_t bytes_of_five = KvCache::total_bytes() - before;
  cache->Truncate(2);
  EXPECT_EQ(cache->length(1), 2);
  EXPECT_EQ(KvCache::total_bytes() - before, bytes_of_five / 5 * 2);
  cache->Truncate(4);  // has no more than it has
  EXPECT_EQ(cache->length(1), 2);
  const std::vector<float> more = Rows(1, 9000);
  cache->Append(1, more.data(), more.data(), 1);
  std::vector<float> expected = Rows(2, 100);
  expected.insert(expected.end(), more.begin(), more.end());
  EXPECT_EQ(Keys(*cache, 1), expected);
}

// A run that entered at layer 1 and took over two positions.
TEST(KvCache, JoinedOnesReadAsTheirParts) {
  const int64_t before = KvCache::total_bytes();
  {
    const auto base = Filled(4, 100);
    auto own = std::make_shared<KvCache>(Config());
    const std::vector<float> rows = Rows(3, 5000);
    own->Append(1, rows.data(), rows.data(), 3);
    const KvCache joined(Config(), {base, 4, own, 2, 1});
    EXPECT_EQ(joined.length(0), 4);
    EXPECT_EQ(joined.length(1), 5);
    EXPECT_EQ(Keys(joined, 0), Rows(4, 100));
    std::vector<float> expected = Rows(2, 100);
    expected.insert(expected.end(), rows.begin(), rows.end());
    EXPECT_EQ(Keys(joined, 1), expected);
    EXPECT_EQ(Keys(joined, 1), expected);  // again, from what was put together
  }
  EXPECT_EQ(KvCache::total_bytes(), before);
}

// The interface of allocators changes with libtorch's versions; one of them is enough.
#if TORCH_VERSION_MAJOR < 2
class FailingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) const override {
    if (allowed-- == 0) throw std::bad_alloc();
    return normal->allocate(bytes);
  }
  c10::Allocator* const normal = c10::GetAllocator(c10::DeviceType::CPU);
  mutable int allowed = -1;
};

// Wherever memory ends, the cache is as it was and can be asked again.
TEST(KvCache, GrowsInWholeOrNotAtAll) {
  FailingAllocator allocator;
  c10::SetAllocator(c10::DeviceType::CPU, &allocator, /*priority=*/255);
  const auto base = Filled(4, 100), own = Filled(3, 5000);
  const KvCache joined(Config(), {base, 4, own, 2, 0});
  const std::vector<float> more = Rows(20, 7);
  for (int allowed : {0, 1}) {
    allocator.allowed = allowed;
    EXPECT_THROW(base->Append(0, more.data(), more.data(), 20), std::bad_alloc);
    EXPECT_EQ(Keys(*base, 0), Rows(4, 100));
    allocator.allowed = allowed;
    EXPECT_THROW(joined.keys(0), std::bad_alloc);
  }
  allocator.allowed = -1;
  std::vector<float> expected = Rows(2, 100);
  const std::vector<float> rest = Rows(3, 5000);
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(Keys(joined, 0), expected);
  base->Append(0, more.data(), more.data(), 20);
  EXPECT_EQ(base->length(0), 24);
  c10::SetAllocator(c10::DeviceType::CPU, allocator.normal, /*priority=*/255);
}
#endif

}  // namespace
}  // namespace mechinterp::engine
