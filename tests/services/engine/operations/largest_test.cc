#include "services/engine/operations/largest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace mechinterp::engine {
namespace {

std::vector<TokenId> BySorting(const std::vector<float>& row, int64_t count) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!std::isnan(row[i])) ids.push_back(static_cast<TokenId>(i));
  }
  std::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) { return row[a] > row[b]; });
  ids.resize(std::min<size_t>(count, ids.size()));
  return ids;
}

TEST(FindLargest, AgreesWithSorting) {
  std::mt19937 random(1);
  std::vector<TokenId> ids;
  for (int round = 0; round < 300; ++round) {
    std::vector<float> row(1 + random() % 1000);
    const int values = 1 + static_cast<int>(random() % 200);  // few: ties
    for (float& value : row) value = static_cast<float>(static_cast<int>(random() % values)) - 50;
    if (round % 5 == 0) std::sort(row.begin(), row.end());
    if (round % 7 == 0) row[random() % row.size()] = NAN;
    if (round % 11 == 0) row[random() % row.size()] = -std::numeric_limits<float>::infinity();
    const int64_t count = 1 + static_cast<int64_t>(random() % (row.size() + 3));
    FindLargest(row, count, ids);
    EXPECT_THAT(ids, testing::UnorderedElementsAreArray(BySorting(row, count))) << "round " << round;
  }
}

TEST(FindLargest, NoneOfNothing) {
  std::vector<TokenId> ids = {1, 2};
  FindLargest({}, 3, ids);
  EXPECT_TRUE(ids.empty());
  FindLargest({1.f, 2.f}, 0, ids);
  EXPECT_TRUE(ids.empty());
}

}  // namespace
}  // namespace mechinterp::engine
