#include "services/common/data_path.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace mechinterp {
namespace {

class DataPathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* folder : {"first", "second"}) std::filesystem::create_directories(root_ / folder);
    std::ofstream(root_ / "second/only_second.json") << "{}";
    std::ofstream(root_ / "first/both.json") << "{}";
    std::ofstream(root_ / "second/both.json") << "{}";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string Folder(const std::string& name) const { return (root_ / name).string(); }
  std::string Find(const std::string& path) const {
    return FindIn({Folder("first"), Folder("second")}, path);
  }

  const std::filesystem::path root_ =
      std::filesystem::path(::testing::TempDir()) / (std::to_string(getpid()) + "-data_path_test");
};

TEST_F(DataPathTest, TakesTheFirstFolderThatHasTheFile) {
  EXPECT_EQ(Find("data/both.json"), Folder("first/both.json"));
  EXPECT_EQ(Find("data/only_second.json"), Folder("second/only_second.json"));
}

TEST_F(DataPathTest, LeavesOtherPathsAndMissingFilesAsTheyAre) {
  EXPECT_EQ(Find("data/none.json"), "data/none.json");
  EXPECT_EQ(Find("both.json"), "both.json");
  EXPECT_EQ(Find("/data/both.json"), "/data/both.json");
  EXPECT_EQ(Find(""), "");
}

TEST_F(DataPathTest, FindsTheProjectsDataFromAnyFolder) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(root_);
  const std::string prompts = DataPath("data/prompts.json");
  std::filesystem::current_path(before);
  EXPECT_TRUE(std::filesystem::equivalent(prompts, ABSTRACT_SOURCE_DIR "/data/prompts.json")) << prompts;
}

TEST_F(DataPathTest, IsToldByTheEnvironmentFirst) {
  std::ofstream(root_ / "first/prompts.json") << "{}";
  setenv("ABSTRACT_DATA_DIR", Folder("first").c_str(), 1);
  EXPECT_EQ(DataPath("data/prompts.json"), Folder("first/prompts.json"));
  unsetenv("ABSTRACT_DATA_DIR");
}

}  // namespace
}  // namespace mechinterp
