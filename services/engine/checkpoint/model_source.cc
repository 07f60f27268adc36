#include "services/engine/checkpoint/model_source.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/foreign_format.h"
#include "services/engine/checkpoint/shard_index.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kSingle[] = "model.safetensors";

struct RepoId {
  std::string id;        // "ORG/NAME"
  std::string revision;  // "main"
};

bool IsWord(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

// Hugging Face's rules for an organisation's or a model's name.
bool IsRepoName(absl::string_view name) {
  auto edge = [](char c) { return c != '-' && c != '.'; };
  return IsWord(name) && name.size() <= 96 && edge(name.front()) && edge(name.back()) &&
         !absl::StrContains(name, "--") && !absl::StrContains(name, "..") && !absl::EndsWith(name, ".git");
}

// A branch, a tag, "refs/pr/1" or a commit hash. It becomes part of a path.
bool IsRevision(absl::string_view revision) {
  const std::vector<absl::string_view> parts = absl::StrSplit(revision, '/');
  return std::all_of(parts.begin(), parts.end(),
                     [](absl::string_view part) { return IsWord(part) && part != "." && part != ".."; });
}

bool IsCommit(absl::string_view revision) {
  return revision.size() == 40 && std::all_of(revision.begin(), revision.end(), [](char c) {
           return absl::ascii_isxdigit(static_cast<unsigned char>(c));
         });
}

// What cannot be a repo id is meant as a path.
std::optional<RepoId> ParseRepoId(absl::string_view model) {
  const size_t at = model.find('@');
  const absl::string_view id = model.substr(0, at);
  const absl::string_view revision = at == absl::string_view::npos ? "main" : model.substr(at + 1);
  const std::vector<absl::string_view> parts = absl::StrSplit(id, '/');
  if (parts.size() != 2 || !IsRepoName(parts[0]) || !IsRepoName(parts[1]) || !IsRevision(revision)) {
    return std::nullopt;
  }
  return RepoId{std::string(id), std::string(revision)};
}

// The command that fetches the model, and what stands in its way. Meta's
// repositories hold every weight a second time under original/.
std::string HowToDownload(const RepoId& repo) {
  return absl::StrCat(
      "download it with\n  hf download ", repo.id,
      repo.revision == "main" ? "" : absl::StrCat(" --revision ", repo.revision),
      " --exclude 'original/*'\nIf the model is gated, as all of Meta's are, its licence must be "
      "accepted first on its page, https://huggingface.co/",
      repo.id, ", and `hf auth login` must know your token");
}

// What is wrong with one of a snapshot's files; empty when nothing is.
std::string FileProblem(const fs::path& path, bool required) {
  std::error_code error;
  if (fs::exists(path, error)) return "";
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    return absl::StrCat(path.filename().string(), " is a link to a file that is not there");
  }
  return required ? absl::StrCat(path.filename().string(), " is missing") : "";
}

// What keeps a snapshot from being loaded; empty when nothing does.
absl::StatusOr<std::vector<std::string>> SnapshotProblems(const fs::path& snapshot) {
  std::vector<std::string> problems;
  auto check = [&](const std::string& file, bool required) {
    if (std::string problem = FileProblem(snapshot / file, required); !problem.empty()) {
      problems.push_back(std::move(problem));
    }
  };
  check("config.json", true);
  for (const char* file : {"generation_config.json", "tokenizer.json", "tokenizer_config.json"}) {
    check(file, false);
  }
  std::error_code error;
  if (fs::exists(snapshot / kSingle, error)) return problems;  // goes before an index, as in Checkpoint
  if (fs::exists(snapshot / kIndex, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(const auto weight_map, ReadShardIndex((snapshot / kIndex).string()));
    std::set<std::string> shards;
    for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
    for (const std::string& shard : shards) check(shard, true);
  } else if (fs::is_symlink(fs::symlink_status(snapshot / kIndex, error))) {
    check(kIndex, true);
  } else {
    check(kSingle, true);
  }
  return problems;
}

// The commit that the cache has for a revision; empty when it has none.
absl::StatusOr<std::string> CachedCommit(const fs::path& folder, const std::string& revision) {
  std::error_code error;
  if (const fs::path ref = folder / "refs" / revision; fs::is_regular_file(ref, error)) {
    ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(ref.string()));
    const std::string commit(absl::StripAsciiWhitespace(text));
    if (!IsCommit(commit)) {
      return absl::InvalidArgumentError(absl::StrCat(ref.string(), ": holds no commit hash"));
    }
    return commit;
  }
  return IsCommit(revision) ? revision : "";
}

absl::StatusOr<ModelSource> ResolveRepo(const RepoId& repo, const std::string& hub_cache) {
  const fs::path folder =
      fs::path(hub_cache) / absl::StrCat("models--", absl::StrJoin(absl::StrSplit(repo.id, '/'), "--"));
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return absl::NotFoundError(absl::StrCat(repo.id, " is neither a directory here nor a model in the cache ",
                                            hub_cache, "; ", HowToDownload(repo)));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const std::string commit, CachedCommit(folder, repo.revision));
  const fs::path snapshot = folder / "snapshots" / commit;
  if (commit.empty() || !fs::is_directory(snapshot, error)) {
    return absl::NotFoundError(absl::StrCat("the cache ", hub_cache, " has no revision ", repo.revision,
                                            " of ", repo.id, "; ", HowToDownload(repo)));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<std::string> problems, SnapshotProblems(snapshot));
  if (!problems.empty()) {
    ABSTRACT_RETURN_IF_ERROR(CheckNotForeign(snapshot.string()));
    return absl::NotFoundError(absl::StrCat(repo.id, " is not complete in the cache (", snapshot.string(),
                                            ": ", absl::StrJoin(problems, ", "), "); ", HowToDownload(repo)));
  }
  return ModelSource{snapshot.string(), repo.id, commit};
}

// "~/x" that no shell expanded: from a configuration file, or after `--model=`.
std::string ExpandHome(const std::string& path, const char* home) {
  if (home == nullptr || *home == '\0' || (path != "~" && !absl::StartsWith(path, "~/"))) return path;
  return home + path.substr(1);
}

}  // namespace

std::string HubCacheDirectory(const Environment& environment) {
  const char* home = environment("HOME");
  auto get = [&](const char* name) {
    const char* value = environment(name);
    return ExpandHome(value == nullptr ? "" : value, home);
  };
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (std::string value = get(name); !value.empty()) return value;
  }
  if (std::string value = get("HF_HOME"); !value.empty()) return (fs::path(value) / "hub").string();
  fs::path cache = get("XDG_CACHE_HOME");
  if (cache.empty()) cache = fs::path(home == nullptr ? "" : home) / ".cache";
  return (cache / "huggingface" / "hub").string();
}

std::string HubCacheDirectory() {
  return HubCacheDirectory([](const char* name) -> const char* { return std::getenv(name); });
}

absl::StatusOr<ModelSource> ResolveModelSource(const std::string& model, const std::string& hub_cache) {
  const std::string path = ExpandHome(model, std::getenv("HOME"));
  std::error_code error;
  if (fs::exists(path, error)) {
    ABSTRACT_RETURN_IF_ERROR(CheckNotForeign(path));
    return ModelSource{path, "", ""};
  }
  if (const std::optional<RepoId> repo = ParseRepoId(model)) return ResolveRepo(*repo, hub_cache);
  return absl::NotFoundError(absl::StrCat(
      "there is no directory ", path,
      absl::StrContains(model, '/') ? "" : ", and a Hugging Face repo id looks like ORG/NAME[@REVISION]"));
}

}  // namespace mechinterp::engine
