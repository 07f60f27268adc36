#ifndef TESTS_SERVICES_MODEL_STORE_STORE_FIXTURE_H_
#define TESTS_SERVICES_MODEL_STORE_STORE_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/model/activation_store.h"

namespace mechinterp {

// A model's shape, small.
engine::ModelConfig SmallConfig();

// A run with random sites, positions and bits: NaNs of every payload, infinities and subnormal
// numbers among them. The same for the same seed; `prompt.ids[0]` is derived from it.
std::shared_ptr<const engine::RecordedRun> RandomRun(unsigned seed);
// One site of `positions` rows of the stream.
std::shared_ptr<const engine::RecordedRun> StreamRun(int positions, float value = 1);

// Whether two runs are the same, bit for bit.
bool SameBits(const engine::RecordedRun& a, const engine::RecordedRun& b);

// A folder of the test's own, removed at the end; a clock that stands still; a store's surroundings.
class StoreTest : public testing::Test {
 public:
  StoreTest();
  ~StoreTest() override;

 protected:
  StoredRunFormat Format(const std::string& serving_hash = "hash") const {
    return {SmallConfig(), serving_hash};
  }
  std::shared_ptr<SpillDirectory> OpenDirectory(const std::string& serving_hash = "hash") const;
  // With the folder, in which another store must not be.
  std::unique_ptr<ActivationStore> MakeStore(int64_t max_memory_bytes, int64_t max_disk_bytes = 1 << 30);
  // A store that has no folder.
  std::unique_ptr<ActivationStore> MakeMemoryStore(int64_t max_memory_bytes);

  std::string PathOf(const std::string& handle) const;
  // Files in the folder.
  int FileCount() const;
  // What a run takes of memory, with its entry; and its entry alone.
  static int64_t BytesOf(const engine::RecordedRun& run);
  static int64_t IndexBytesOf(const engine::RecordedRun& run);

  std::string folder_;  // does not exist at first
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1000);
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  StoreMetrics metrics_{*registry_};
};

}  // namespace mechinterp

#endif  // TESTS_SERVICES_MODEL_STORE_STORE_FIXTURE_H_
