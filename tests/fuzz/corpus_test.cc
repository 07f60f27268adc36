#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::fuzz {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> FilesOf(const std::string& target) {
  const fs::path folder = fs::path(ABSTRACT_SOURCE_DIR) / "tests/fuzz/corpus" / target;
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Each whole, and cut short at some places.
TEST(FuzzCorpus, KeepsEveryPromise) {
  constexpr size_t kCuts = 16;
  ASSERT_FALSE(Targets().empty());
  for (const auto& [name, target] : Targets()) {
    const std::vector<fs::path> files = FilesOf(name);
    EXPECT_FALSE(files.empty()) << name;
    for (const fs::path& path : files) {
      std::fprintf(stderr, "%s\n", path.c_str());  // a broken promise ends the program
      std::ifstream file(path, std::ios::binary);
      const std::string content{std::istreambuf_iterator<char>(file), {}};
      for (size_t cut = 1; cut <= kCuts; ++cut) target(content.substr(0, content.size() * cut / kCuts));
    }
  }
}

}  // namespace
}  // namespace mechinterp::fuzz
