#include "services/engine/checkpoint/content_hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class HashOfFilesTest : public testing::Test {
 protected:
  HashOfFilesTest() { fs::create_directories(folder_); }
  ~HashOfFilesTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  std::string Read(const std::string& path) const {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const fs::path folder_ =
      fs::temp_directory_path() / absl::StrCat("abstract hashes ", getpid(),
                                               testing::UnitTest::GetInstance()->current_test_info()->name());
  const std::string cache_ = Path("cache/hashes.json");
};

// By coreutils: printf abc >a; printf '' >b; sha256sum a b | sha256sum
TEST_F(HashOfFilesTest, IsWhatSha256sumPrints) {
  const std::string b = Write("b", ""), a = Write("a", "abc");
  const auto hash = HashOfFiles({b, a}, "");
  ASSERT_THAT(hash, IsOk());
  EXPECT_EQ(*hash, "09c7e0b8a02d027d95ec0375a600ed4ad4d6b26a1c93f16d9150cab5fec761a6");
}

TEST_F(HashOfFilesTest, SeesEveryByteOfALargeFile) {
  std::string content(5 << 20, 'x');
  const std::string path = Write("model.safetensors", content);
  const std::string before = *HashOfFiles({path}, cache_);
  for (const size_t at : {size_t{0}, content.size() / 3, content.size() - 1}) {
    content[at] = 'y';
    Write("model.safetensors", content);
    EXPECT_NE(*HashOfFiles({path}, cache_), before) << at;
    content[at] = 'x';
  }
  Write("model.safetensors", content);
  EXPECT_EQ(*HashOfFiles({path}, cache_), before);
}

TEST_F(HashOfFilesTest, DoesNotReadAgainWhatHasNotChanged) {
  const std::string path = Write("model.safetensors", std::string(2 << 20, 'x'));
  const std::string taken = *HashOfFiles({path}, cache_);
  std::string cache = Read(cache_);
  EXPECT_THAT(cache, HasSubstr("model.safetensors"));
  // It goes by the cache: a false entry is believed while the file is as it was ...
  const size_t digits = cache.find("\"sha256\": \"") + 11;
  cache.replace(digits, 4, cache.substr(digits, 4) == "0000" ? "1111" : "0000");
  std::ofstream(cache_) << cache;
  EXPECT_NE(*HashOfFiles({path}, cache_), taken);
  // ... and no longer when it was written, though its size is the same.
  Write("model.safetensors", std::string(2 << 20, 'x'));
  EXPECT_EQ(*HashOfFiles({path}, cache_), taken);
}

TEST_F(HashOfFilesTest, IsNotHurtByADamagedCache) {
  const std::string path = Write("model.safetensors", std::string(2 << 20, 'x'));
  const std::string taken = *HashOfFiles({path}, "");
  fs::create_directories(folder_ / "cache");
  for (const char* damaged : {"", "{", "[]", "{\"a\": 3}", "{\"a\": {\"state\": 1, \"sha256\": []}}"}) {
    std::ofstream(cache_) << damaged;
    EXPECT_EQ(*HashOfFiles({path}, cache_), taken) << damaged;
  }
  EXPECT_EQ(*HashOfFiles({path}, "/proc/none/hashes.json"), taken);
}

TEST_F(HashOfFilesTest, NamesAFileThatIsNotThere) {
  const auto hash = HashOfFiles({Write("a", "abc"), Path("none")}, "");
  EXPECT_EQ(hash.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(hash.status().message()), HasSubstr("none"));
}

}  // namespace
}  // namespace mechinterp::engine
