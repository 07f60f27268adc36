#include "services/engine/checkpoint/model_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kId[] = "meta-llama/Meta-Llama-3-8B-Instruct";
constexpr char kCommit[] = "8afb486c1db24fe5011ec46dfbe5b5dccdb575c2";
constexpr char kOtherCommit[] = "0123456789abcdef0123456789abcdef01234567";

std::string CacheWith(const std::map<std::string, std::string>& variables) {
  return HubCacheDirectory([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(HubCacheDirectory, FollowsTheVariablesOfHuggingfaceHubInTheirOrder) {
  std::map<std::string, std::string> variables = {{"HOME", "/home/me"}};
  EXPECT_EQ(CacheWith(variables), "/home/me/.cache/huggingface/hub");
  variables["XDG_CACHE_HOME"] = "/xdg";
  EXPECT_EQ(CacheWith(variables), "/xdg/huggingface/hub");
  variables["HF_HOME"] = "/hf";
  EXPECT_EQ(CacheWith(variables), "/hf/hub");
  variables["HUGGINGFACE_HUB_CACHE"] = "/old";
  EXPECT_EQ(CacheWith(variables), "/old");
  variables["HF_HUB_CACHE"] = "/cache";
  EXPECT_EQ(CacheWith(variables), "/cache");
}

TEST(HubCacheDirectory, ExpandsTheHomeFolderAndPassesOverWhatIsEmpty) {
  EXPECT_EQ(CacheWith({{"HOME", "/home/me"}, {"HF_HOME", "~/models"}}), "/home/me/models/hub");
  EXPECT_EQ(CacheWith({{"HOME", "/home/me"}, {"HF_HUB_CACHE", ""}, {"HF_HOME", "/hf"}}), "/hf/hub");
}

// A cache as huggingface_hub leaves it: files are links into blobs/.
class ModelSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("abstract-model-source-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_ / "hub");
    folder_ = root_ / "hub" / "models--meta-llama--Meta-Llama-3-8B-Instruct";
  }
  void TearDown() override { fs::remove_all(root_); }

  static void Write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  void AddRef(const std::string& revision, const std::string& commit) {
    Write(folder_ / "refs" / revision, commit);
  }
  void AddFile(const std::string& commit, const std::string& file, const std::string& text = "{}") {
    const std::string blob = "blob-of-" + commit.substr(0, 6) + "-" + fs::path(file).filename().string();
    Write(folder_ / "blobs" / blob, text);
    const fs::path link = folder_ / "snapshots" / commit / file;
    fs::create_directories(link.parent_path());
    fs::create_symlink(fs::path("../..") / (file.find('/') == std::string::npos ? "" : "..") / "blobs" / blob,
                       link);
  }
  void AddSharded(const std::string& commit) {
    AddFile(commit, "config.json");
    AddFile(commit, "tokenizer.json");
    AddFile(
        commit, "model.safetensors.index.json",
        R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
                               "c": "model-00002-of-00002.safetensors"}})");
    AddFile(commit, "model-00001-of-00002.safetensors");
    AddFile(commit, "model-00002-of-00002.safetensors");
  }
  fs::path Snapshot(const std::string& commit) const { return folder_ / "snapshots" / commit; }

  absl::StatusOr<ModelSource> Resolve(const std::string& model) {
    return ResolveModelSource(model, (root_ / "hub").string());
  }
  std::string Error(const std::string& model, absl::StatusCode code = absl::StatusCode::kNotFound) {
    const auto source = Resolve(model);
    EXPECT_EQ(source.status().code(), code) << source.status();
    return std::string(source.status().message());
  }

  fs::path root_, folder_;
};

TEST_F(ModelSourceTest, FindsTheSnapshotOfTheMainRevision) {
  AddRef("main", kCommit);
  AddSharded(kCommit);
  const auto source = Resolve(kId);
  ASSERT_THAT(source, IsOk());
  EXPECT_EQ(source->directory, Snapshot(kCommit).string());
  EXPECT_EQ(source->repo_id, kId);
  EXPECT_EQ(source->commit, kCommit);
}

TEST_F(ModelSourceTest, FindsOtherRevisionsAndCommits) {
  AddRef("main", kCommit);
  AddSharded(kCommit);
  AddRef("refs/pr/7", std::string(kOtherCommit) + "\n");
  AddFile(kOtherCommit, "config.json");
  AddFile(kOtherCommit, "model.safetensors");
  EXPECT_EQ(Resolve(std::string(kId) + "@refs/pr/7")->commit, kOtherCommit);
  const auto by_commit = Resolve(std::string(kId) + "@" + kOtherCommit);
  ASSERT_THAT(by_commit, IsOk());
  EXPECT_EQ(by_commit->directory, Snapshot(kOtherCommit).string());
  EXPECT_EQ(by_commit->repo_id, kId);
}

TEST_F(ModelSourceTest, PrintsTheDownloadCommandWhenTheCacheLacksTheModel) {
  EXPECT_THAT(Error(kId), AllOf(HasSubstr("is neither a directory here nor a model in the cache"),
                                HasSubstr("\n  hf download meta-llama/Meta-Llama-3-8B-Instruct "),
                                HasSubstr("licence must be accepted"),
                                HasSubstr("huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct")));
  EXPECT_THAT(Error(kId), Not(HasSubstr("--revision")));
  EXPECT_THAT(Error(std::string(kId) + "@v2"),
              HasSubstr("hf download meta-llama/Meta-Llama-3-8B-Instruct --revision v2"));
}

TEST_F(ModelSourceTest, NamesTheRevisionThatTheCacheLacks) {
  AddSharded(kCommit);  // as `hf download --revision COMMIT` leaves it: no ref
  EXPECT_THAT(Error(kId), HasSubstr("has no revision main of meta-llama/Meta-Llama-3-8B-Instruct"));
  AddRef("main", kOtherCommit);  // whose snapshot is gone
  EXPECT_THAT(Error(kId), HasSubstr("has no revision main"));
  EXPECT_THAT(Error(std::string(kId) + "@" + kOtherCommit),
              HasSubstr(std::string("--revision ") + kOtherCommit));
}

TEST_F(ModelSourceTest, NamesWhatAnIncompleteSnapshotLacks) {
  AddRef("main", kCommit);
  AddSharded(kCommit);
  fs::remove(Snapshot(kCommit) / "model-00002-of-00002.safetensors");
  EXPECT_THAT(Error(kId), AllOf(HasSubstr("model-00002-of-00002.safetensors is missing"),
                                HasSubstr("hf download"), Not(HasSubstr("00001"))));
  fs::remove(Snapshot(kCommit) / "config.json");
  EXPECT_THAT(Error(kId), HasSubstr("config.json is missing"));
}

TEST_F(ModelSourceTest, NamesLinksThatDangle) {
  AddRef("main", kCommit);
  AddSharded(kCommit);
  fs::remove(fs::canonical(Snapshot(kCommit) / "model-00001-of-00002.safetensors"));
  fs::remove(fs::canonical(Snapshot(kCommit) / "tokenizer.json"));
  EXPECT_THAT(Error(kId),
              AllOf(HasSubstr("model-00001-of-00002.safetensors is a link to a file that is not there"),
                    HasSubstr("tokenizer.json is a link to a file that is not there")));
  fs::remove(fs::canonical(Snapshot(kCommit) / "model.safetensors.index.json"));
  EXPECT_THAT(Error(kId), HasSubstr("model.safetensors.index.json is a link"));
}

TEST_F(ModelSourceTest, RefusesABrokenCache) {
  AddRef("main", "../../../etc");
  AddSharded(kCommit);
  EXPECT_THAT(Error(kId, absl::StatusCode::kInvalidArgument), HasSubstr("holds no commit hash"));
  AddRef("main", kCommit);
  fs::remove(Snapshot(kCommit) / "model.safetensors.index.json");
  AddFile(kOtherCommit, "config.json");
  Write(Snapshot(kCommit) / "model.safetensors.index.json", R"({"weight_map": {"a": "../x.safetensors"}})");
  EXPECT_THAT(Error(kId, absl::StatusCode::kInvalidArgument), HasSubstr("bad file name"));
}

TEST_F(ModelSourceTest, TellsPathsFromRepoIds) {
  for (const std::string path :
       {"/no/such/model", "./no-such-model", "../models/x", "a/b/c", "-org/name", "org/name.git", "org/a--b",
        "org/..", "org/name@", "org/name@../../x", "org/name/"}) {
    EXPECT_THAT(Error(path), AllOf(HasSubstr("there is no directory " + path), Not(HasSubstr("hf download"))))
        << path;
  }
  EXPECT_THAT(Error("no-such-model"), HasSubstr("a Hugging Face repo id looks like ORG/NAME"));
}

TEST_F(ModelSourceTest, TakesADirectoryAsItIs) {
  Write(root_ / "model" / "config.json", "{}");
  Write(root_ / "model" / "model.safetensors", "");
  const auto source = Resolve((root_ / "model").string());
  ASSERT_THAT(source, IsOk());
  EXPECT_EQ(source->directory, (root_ / "model").string());
  EXPECT_EQ(source->repo_id, "");
  EXPECT_EQ(source->commit, "");
}

class ForeignFormatTest : public ModelSourceTest {
 protected:
  std::string ErrorFor(const std::string& file, const std::string& text = "") {
    fs::remove_all(root_ / "model");
    Write(root_ / "model" / file, text);
    const std::string error = Error((root_ / "model").string(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(error, HasSubstr("needed is a directory in Hugging Face's layout"));
    return error;
  }
};

TEST_F(ForeignFormatTest, NamesWhatADirectoryHoldsInstead) {
  EXPECT_THAT(ErrorFor("llama-3-8b.Q4_K_M.gguf"), HasSubstr("holds GGUF files"));
  EXPECT_THAT(ErrorFor("pytorch_model.bin"), HasSubstr("PyTorch pickles"));
  EXPECT_THAT(ErrorFor("pytorch_model.bin.index.json"), HasSubstr("PyTorch pickles"));
  EXPECT_THAT(ErrorFor("original/consolidated.00.pth"), HasSubstr("Meta's original files"));
  EXPECT_THAT(ErrorFor("consolidated.00.pth"), HasSubstr("Meta's original files"));
  EXPECT_THAT(ErrorFor("consolidated.safetensors"), HasSubstr("Mistral's own files"));
  EXPECT_THAT(ErrorFor("adapter_config.json"), HasSubstr("an adapter (LoRA)"));
  EXPECT_THAT(ErrorFor("snapshots/abc/config.json"), HasSubstr("name the model by its repo id"));
}

TEST_F(ForeignFormatTest, NamesWhatAFileIs) {
  // By its contents, whatever it is called.
  Write(root_ / "model.bin", "GGUF\x03");
  EXPECT_THAT(Error((root_ / "model.bin").string(), absl::StatusCode::kFailedPrecondition),
              HasSubstr("is a GGUF file"));
  Write(root_ / "model.safetensors", "");
  EXPECT_THAT(Error((root_ / "model.safetensors").string(), absl::StatusCode::kFailedPrecondition),
              HasSubstr("name its directory"));
  Write(root_ / "notes.txt", "");
  EXPECT_THAT(Error((root_ / "notes.txt").string(), absl::StatusCode::kFailedPrecondition),
              HasSubstr("is a file"));
}

TEST_F(ForeignFormatTest, LooksPastOtherFormatsBesideSafetensors) {
  Write(root_ / "model" / "model.safetensors", "");
  Write(root_ / "model" / "pytorch_model.bin", "");
  Write(root_ / "model" / "original" / "consolidated.00.pth", "");
  EXPECT_THAT(Resolve((root_ / "model").string()), IsOk());
}

TEST_F(ForeignFormatTest, SaysSoOfACachedSnapshotToo) {
  AddRef("main", kCommit);
  AddFile(kCommit, "config.json");
  AddFile(kCommit, "original/consolidated.00.pth");
  EXPECT_THAT(Error(kId, absl::StatusCode::kFailedPrecondition), HasSubstr("Meta's original files"));
}

}  // namespace
}  // namespace mechinterp::engine
