#include "services/model/engine/kv_cache.h"

#include <gtest/gtest.h>

#include <numeric>

namespace mechinterp::engine {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.layer_count = 2;
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

}  // namespace
}  // namespace mechinterp::engine
