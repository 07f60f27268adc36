// The layout of the source tree, as ARCHITECTURE.md tells it: which folder may include what.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/layout/source_tree.h"

namespace mechinterp::layout {
namespace {

using testing::Contains;
using testing::IsEmpty;

const std::map<std::string, SourceFile>& Sources() {
  static const auto& sources = *new std::map<std::string, SourceFile>(
      ReadSources(ABSTRACT_SOURCE_DIR, {"services", "clients", "data"}));
  return sources;
}

bool StartsWith(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

bool IsOfLibtorch(const std::string& include) {
  return StartsWith(include, "ATen/") || StartsWith(include, "c10/") || StartsWith(include, "torch/");
}

// The file and all of ours that it includes, directly or not.
std::set<std::string> Reached(const std::string& path) {
  std::set<std::string> reached;
  const std::function<void(const std::string&)> visit = [&](const std::string& file) {
    if (!Sources().contains(file) || !reached.insert(file).second) return;
    for (const std::string& include : Sources().at(file).includes) visit(include);
  };
  visit(path);
  return reached;
}

TEST(Layout, TheTreeIsRead) {
  EXPECT_GT(Sources().size(), 300u);
  EXPECT_THAT(Sources().at("services/engine/forward/run_pass.cc").includes,
              Contains("services/engine/forward/forward.h"));
}

// No two folders include from each other, directly or by way of others.
TEST(Layout, HasNoCircleOfFolders) {
  std::map<std::string, std::set<std::string>> edges;
  for (const auto& [path, file] : Sources()) {
    for (const std::string& include : file.includes) {
      if (!Sources().contains(include)) continue;
      const std::string from = file.folder(), to = Sources().at(include).folder();
      if (from != to) edges[from].insert(to);
    }
  }
  EXPECT_THAT(FindCircle(edges), IsEmpty());
}

TEST(FindCircle, FindsOne) {
  EXPECT_THAT(FindCircle({{"a", {"b"}}, {"b", {"c"}}, {"c", {"b"}}}), testing::ElementsAre("b", "c", "b"));
  EXPECT_THAT(FindCircle({{"a", {"b", "c"}}, {"b", {"c"}}}), IsEmpty());
}

// What a room of the engine includes of another, its library links by name.
TEST(Layout, TheEnginesRoomsIncludeOnlyWhatTheirLibrariesLink) {
  const std::vector<Library> libraries = ReadLibraries(ABSTRACT_SOURCE_DIR, "services");
  // Of a room: its libraries, and what they link. Files of a folder below belong to the room.
  std::map<std::string, std::set<std::string>> names, links;
  for (const Library& library : libraries) {
    names[library.folder].insert(library.name);
    links[library.folder].insert(library.dependencies.begin(), library.dependencies.end());
  }
  auto room_of = [&](std::string folder) {
    while (!folder.empty() && !names.contains(folder)) folder = folder.substr(0, folder.rfind('/'));
    return folder;
  };
  for (const auto& [path, file] : Sources()) {
    if (!StartsWith(path, "services/engine/")) continue;
    const std::string room = room_of(file.folder());
    ASSERT_TRUE(names.contains(room)) << path << " is in no library";
    for (const std::string& include : file.includes) {
      if (IsOfLibtorch(include)) {
        EXPECT_TRUE(links[room].contains("engine_torch")) << path << " includes " << include;
      }
      if (!StartsWith(include, "services/engine/")) {
        EXPECT_FALSE(StartsWith(include, "services/model/") || StartsWith(include, "clients/") ||
                     StartsWith(include, "mechinterp/") || StartsWith(include, "grpc"))
            << path << " includes " << include;
        continue;
      }
      ASSERT_TRUE(Sources().contains(include) || include.find("kernel_source") != std::string::npos)
          << path << " includes " << include;
      const std::string other = room_of(include.substr(0, include.rfind('/')));
      if (other == room) continue;
      const bool linked = std::any_of(names[other].begin(), names[other].end(),
                                      [&](const std::string& name) { return links[room].contains(name); });
      EXPECT_TRUE(linked) << path << " includes " << include << ", but " << room << " does not link "
                          << *names[other].begin();
    }
  }
}

// libtorch stays in the engine: no other part includes it, nor a header of the engine's that
// does. The trainer of the embedded model and what trains models to a circuit are programs of
// their own that train by autograd.
TEST(Layout, LibtorchIsNowhereOutsideTheEngine) {
  for (const auto& [path, file] : Sources()) {
    if (StartsWith(path, "services/engine/") || StartsWith(path, "data/trainer/") ||
        StartsWith(path, "data/make_trained/")) {
      continue;
    }
    for (const std::string& reached : Reached(path)) {
      for (const std::string& include : Sources().at(reached).includes) {
        EXPECT_FALSE(IsOfLibtorch(include))
            << path << " reaches " << reached << ", which includes " << include;
      }
    }
  }
}

// services/common knows neither the engine nor the services' logic.
TEST(Layout, CommonKnowsNobody) {
  for (const auto& [path, file] : Sources()) {
    if (!StartsWith(path, "services/common/")) continue;
    for (const std::string& include : file.includes) {
      EXPECT_FALSE(StartsWith(include, "services/engine/") || StartsWith(include, "services/model/") ||
                   StartsWith(include, "services/analysis/") || StartsWith(include, "clients/"))
          << path << " includes " << include;
    }
  }
}

// Servers know no service, and what serves calls is in one place.
TEST(Layout, RpcKnowsNoService) {
  for (const auto& [path, file] : Sources()) {
    for (const std::string& include : file.includes) {
      if (StartsWith(path, "services/rpc/")) {
        EXPECT_TRUE(!StartsWith(include, "services/") || StartsWith(include, "services/rpc/") ||
                    StartsWith(include, "services/common/"))
            << path << " includes " << include;
        EXPECT_FALSE(StartsWith(include, "mechinterp/")) << path << " includes " << include;
      }
      if (StartsWith(path, "services/common/") || StartsWith(path, "services/engine/")) {
        EXPECT_FALSE(StartsWith(include, "services/rpc/")) << path << " includes " << include;
      }
    }
  }
}

// What a .cc file defines, the header of its name declares.
TEST(Layout, EverySourceFileHasItsHeader) {
  // Files whose header is another: a kernel for each format of weights, by weight_kernel.h.
  const std::set<std::string> exceptions = {
      "services/engine/kernels/multiply_bf16.cc", "services/engine/kernels/multiply_f16.cc",
      "services/engine/kernels/multiply_f32.cc",  "services/engine/kernels/multiply_int8.cc",
      "services/engine/kernels/multiply_nf4.cc",
  };
  for (const auto& [path, file] : Sources()) {
    if (!StartsWith(path, "services/engine/") || path.substr(path.rfind('.')) != ".cc") continue;
    if (exceptions.contains(path)) continue;
    EXPECT_TRUE(Sources().contains(path.substr(0, path.rfind('.')) + ".h")) << path;
  }
}

}  // namespace
}  // namespace mechinterp::layout
