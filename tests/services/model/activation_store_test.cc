#include "services/model/activation_store.h"

#include <gtest/gtest.h>

#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

std::shared_ptr<const engine::RecordedRun> RunOf(int64_t values) {
  auto run = std::make_shared<engine::RecordedRun>();
  run->activations[{engine::HookPoint::kEmbed, 0}] = {{{1, 1, values}, std::vector<float>(values)}, {0}};
  return run;
}

class ActivationStoreTest : public testing::Test {
 protected:
  absl::Time now_ = absl::UnixEpoch();
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  ActivationStore store_{1000, metrics_, [this] { return now_; }};
};

TEST_F(ActivationStoreTest, KeepsARunUntilItIsUnusedForItsTime) {
  const std::string handle = *store_.Put(RunOf(10), absl::Seconds(10));
  now_ += absl::Seconds(9);
  EXPECT_THAT(store_.Get(handle), IsOk());  // prolongs it
  now_ += absl::Seconds(9);
  EXPECT_THAT(store_.Get(handle), IsOk());
  now_ += absl::Seconds(10);
  EXPECT_EQ(store_.Get(handle).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_.List().empty());
}

TEST_F(ActivationStoreTest, RefusesWhatDoesNotFitUntilSomethingIsDeleted) {
  const std::string first = *store_.Put(RunOf(200), absl::Hours(1));
  EXPECT_EQ(store_.Put(RunOf(100), absl::Hours(1)).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(metrics_.stored_bytes.Value(), 800);
  EXPECT_THAT(store_.Delete(first), IsOk());
  EXPECT_THAT(store_.Put(RunOf(250), absl::Hours(1)), IsOk());
  EXPECT_EQ(store_.Delete(first).code(), absl::StatusCode::kNotFound);
}

TEST_F(ActivationStoreTest, HandlesAreDistinctAndListedInOrder) {
  const std::string first = *store_.Put(RunOf(1), absl::Hours(1));
  now_ += absl::Seconds(1);
  const std::string second = *store_.Put(RunOf(1), absl::Hours(1));
  EXPECT_NE(first, second);
  ASSERT_EQ(store_.List().size(), 2u);
  EXPECT_EQ(store_.List()[0].handle, first);
}

}  // namespace
}  // namespace mechinterp
