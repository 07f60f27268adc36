#ifndef TESTS_LAYOUT_SOURCE_TREE_H_
#define TESTS_LAYOUT_SOURCE_TREE_H_

#include <map>
#include <set>
#include <string>
#include <vector>

namespace mechinterp::layout {

// What the project's C++ files include and what its libraries link, read from their text.

struct SourceFile {
  std::string path;                   // from the root: "services/engine/model.h"
  std::vector<std::string> includes;  // as written: "absl/strings/str_cat.h", "ATen/ATen.h"

  std::string folder() const;
};

struct Library {
  std::string name;    // "engine_forward"
  std::string folder;  // "services/engine/forward"
  std::vector<std::string> sources;
  std::set<std::string> dependencies;
};

// Every .h and .cc under these folders of the root, by path.
std::map<std::string, SourceFile> ReadSources(const std::string& root,
                                              const std::vector<std::string>& folders);

// What abstract_library makes in the CMakeLists.txt files under a folder.
std::vector<Library> ReadLibraries(const std::string& root, const std::string& folder);

// A circle of folders each of which includes from the next, first and last the same; empty
// when there is none. `edges`: from each folder, those that it includes from.
std::vector<std::string> FindCircle(const std::map<std::string, std::set<std::string>>& edges);

}  // namespace mechinterp::layout

#endif  // TESTS_LAYOUT_SOURCE_TREE_H_
