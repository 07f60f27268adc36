#include "tests/services/model/store/store_fixture.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <iterator>
#include <random>

#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

float RandomBits(std::mt19937& random) {
  static constexpr uint32_t kSpecial[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                          0xffffffff, 0x80000000, 0x00000001, 0x7fc0dead};
  const uint32_t bits = random() % 4 == 0 ? kSpecial[random() % 8] : random();
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// A handle of the right length.
const char kHandle[] = "act-0123456789abcdef0123456789abcdef";

}  // namespace

engine::ModelConfig SmallConfig() {
  engine::ModelConfig config;
  config.layers.resize(2);
  config.head_count = 4;
  config.key_value_head_count = 2;
  config.head_size = 6;
  config.d_model = 16;
  config.d_ff = 20;
  config.vocabulary_size = 1000;
  config.context_length = 64;
  return config;
}

std::shared_ptr<const engine::RecordedRun> RandomRun(unsigned seed) {
  std::mt19937 random(seed);
  const engine::ModelConfig config = SmallConfig();
  auto run = std::make_shared<engine::RecordedRun>();
  const int length = 1 + static_cast<int>(random() % 12);
  for (int i = 0; i < length; ++i) run->prompt.ids.push_back(static_cast<int>(random() % 1000));
  run->prompt.ids.shrink_to_fit();
  run->prompt.ids[0] = static_cast<int>(seed % 1000);
  if (random() % 2 == 0) run->prompt.last_instruction_position = static_cast<int>(random() % length);
  const unsigned rarity = 1 + random() % 20;
  for (const engine::HookSite& site : engine::AllSites(config)) {
    if (random() % rarity != 0) continue;
    engine::RecordedActivation& recorded = run->activations[site];
    for (int p = 0; p < length; ++p) {
      if (random() % 3 != 0 || p == length - 1) recorded.positions.push_back(p);
    }
    recorded.positions.shrink_to_fit();
    const engine::SiteShape shape = engine::ShapeOf(site.point, config);
    recorded.values.shape = {static_cast<int64_t>(recorded.positions.size()), shape.heads,
                             shape.width == engine::kWidthIsKeys ? length : shape.width};
    recorded.values.values.resize(engine::ElementCount(recorded.values.shape));
    for (float& value : recorded.values.values) value = RandomBits(random);
  }
  return run;
}

std::shared_ptr<const engine::RecordedRun> StreamRun(int positions, float value) {
  auto run = std::make_shared<engine::RecordedRun>();
  run->prompt.ids.assign(positions, 1);
  const int width = SmallConfig().d_model;
  engine::RecordedActivation& recorded = run->activations[{engine::HookPoint::kEmbed, 0}];
  for (int p = 0; p < positions; ++p) recorded.positions.push_back(p);
  recorded.positions.shrink_to_fit();
  recorded.values = {{positions, 1, width}, std::vector<float>(positions * width, value)};
  return run;
}

bool SameBits(const engine::RecordedRun& a, const engine::RecordedRun& b) {
  const auto same = [](const engine::RecordedActivation& x, const engine::RecordedActivation& y) {
    return x.positions == y.positions && x.values.shape == y.values.shape &&
           x.values.values.size() == y.values.values.size() &&
           std::memcmp(x.values.values.data(), y.values.values.data(),
                       x.values.values.size() * sizeof(float)) == 0;
  };
  if (a.prompt.ids != b.prompt.ids || a.activations.size() != b.activations.size()) return false;
  if (a.prompt.last_instruction_position != b.prompt.last_instruction_position) return false;
  return std::equal(
      a.activations.begin(), a.activations.end(), b.activations.begin(),
      [&](const auto& x, const auto& y) { return x.first == y.first && same(x.second, y.second); });
}

StoreTest::StoreTest()
    : folder_(testing::TempDir() + "/abstract-store-" + std::to_string(::getpid()) + "-" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
  std::filesystem::remove_all(folder_);
}

StoreTest::~StoreTest() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::shared_ptr<SpillDirectory> StoreTest::OpenDirectory(const std::string& serving_hash) const {
  auto directory = SpillDirectory::Open(folder_, Format(serving_hash));
  EXPECT_THAT(directory, IsOk());
  return directory.ok() ? *directory : nullptr;
}

std::unique_ptr<ActivationStore> StoreTest::MakeStore(int64_t max_memory_bytes, int64_t max_disk_bytes) {
  return std::make_unique<ActivationStore>(
      ActivationStoreOptions{max_memory_bytes, max_disk_bytes, OpenDirectory(), absl::ZeroDuration()},
      metrics_, [this] { return now_; });
}

std::unique_ptr<ActivationStore> StoreTest::MakeMemoryStore(int64_t max_memory_bytes) {
  return std::make_unique<ActivationStore>(
      ActivationStoreOptions{max_memory_bytes, 0, nullptr, absl::ZeroDuration()}, metrics_,
      [this] { return now_; });
}

std::string StoreTest::PathOf(const std::string& handle) const {
  return folder_ + "/" + SpillDirectory::FileName(handle);
}

int StoreTest::FileCount() const {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator(folder_), {}));
}

int64_t StoreTest::IndexBytesOf(const engine::RecordedRun& run) {
  StoredRunInfo info = DescribeRun(run);
  info.handle = kHandle;
  return StoredRunIndex::IndexBytes(info);
}

int64_t StoreTest::BytesOf(const engine::RecordedRun& run) { return FootprintBytes(run) + IndexBytesOf(run); }

}  // namespace mechinterp
