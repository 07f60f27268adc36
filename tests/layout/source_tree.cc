#include "tests/layout/source_tree.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <sstream>

namespace mechinterp::layout {
namespace {

namespace fs = std::filesystem;

std::string ReadText(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::vector<std::string> AllMatches(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> found;
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end; match != end; ++match) {
    found.push_back((*match)[1]);
  }
  return found;
}

// The words between one keyword of a CMake call and the next.
std::vector<std::string> WordsAfter(const std::string& call, const std::string& keyword) {
  std::vector<std::string> words;
  std::istringstream in(call);
  bool wanted = false;
  for (std::string word; in >> word;) {
    if (word == "SOURCES" || word == "DEPENDS") {
      wanted = word == keyword;
    } else if (wanted) {
      words.push_back(word);
    }
  }
  return words;
}

std::string Folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

}  // namespace

std::string SourceFile::folder() const { return Folder(path); }

std::map<std::string, SourceFile> ReadSources(const std::string& root,
                                              const std::vector<std::string>& folders) {
  static const std::regex include("#include [<\"]([^>\"]+)[>\"]");
  std::map<std::string, SourceFile> files;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(root) / folder)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() || (extension != ".h" && extension != ".cc")) continue;
      const std::string path = fs::relative(entry.path(), root).generic_string();
      files[path] = {path, AllMatches(ReadText(entry.path()), include)};
    }
  }
  return files;
}

std::vector<Library> ReadLibraries(const std::string& root, const std::string& folder) {
  static const std::regex comment("#[^\n]*"), call("abstract_library\\(([^)]*)\\)");
  std::vector<Library> libraries;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(root) / folder)) {
    if (entry.path().filename() != "CMakeLists.txt") continue;
    const std::string text = std::regex_replace(ReadText(entry.path()), comment, "");
    for (const std::string& arguments : AllMatches(text, call)) {
      Library library;
      std::istringstream(arguments) >> library.name;
      library.folder = fs::relative(entry.path().parent_path(), root).generic_string();
      library.sources = WordsAfter(arguments, "SOURCES");
      const std::vector<std::string> dependencies = WordsAfter(arguments, "DEPENDS");
      library.dependencies.insert(dependencies.begin(), dependencies.end());
      libraries.push_back(std::move(library));
    }
  }
  return libraries;
}

std::vector<std::string> FindCircle(const std::map<std::string, std::set<std::string>>& edges) {
  std::set<std::string> done;
  std::vector<std::string> path, circle;
  const std::function<bool(const std::string&)> visit = [&](const std::string& node) {
    if (auto begin = std::find(path.begin(), path.end(), node); begin != path.end()) {
      circle.assign(begin, path.end());
      circle.push_back(node);
      return true;
    }
    if (done.contains(node) || !edges.contains(node)) return false;
    path.push_back(node);
    for (const std::string& next : edges.at(node)) {
      if (visit(next)) return true;
    }
    path.pop_back();
    done.insert(node);
    return false;
  };
  for (const auto& [node, next] : edges) {
    if (visit(node)) break;
  }
  return circle;
}

}  // namespace mechinterp::layout
