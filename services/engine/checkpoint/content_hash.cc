#include "services/engine/checkpoint/content_hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/common/json_file.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp::engine {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kBlock = 1 << 20;
constexpr uint64_t kWorthKeeping = 1 << 20;  // bytes
constexpr uint64_t kMaxCacheBytes = 16 << 20;

// What a file's contents are known by without reading them: its size, its number, and when its
// contents and the file were last changed.
absl::StatusOr<std::string> StateOf(const std::string& path, int descriptor) {
  struct stat status;
  if (fstat(descriptor, &status) != 0) return SystemError(path, errno);
#ifdef __APPLE__
  const auto &modified = status.st_mtimespec, &changed = status.st_ctimespec;
#else
  const auto &modified = status.st_mtim, &changed = status.st_ctim;
#endif
  return absl::StrCat(status.st_size, " bytes, file ", status.st_ino, ", modified ", modified.tv_sec, ".",
                      modified.tv_nsec, ", changed ", changed.tv_sec, ".", changed.tv_nsec);
}

struct FileHash {
  std::string state;  // empty: not worth keeping
  std::string hash;
};
// By real path.
using FileHashes = std::map<std::string, FileHash>;

absl::StatusOr<std::string> HashContents(const std::string& path, int descriptor) {
  Sha256 hash;
  std::vector<char> block(kBlock);
  while (true) {
    const ssize_t count = read(descriptor, block.data(), block.size());
    if (count == 0) return hash.Hex();
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(path, errno);
    hash.Add(block.data(), static_cast<size_t>(count));
  }
}

absl::StatusOr<FileHash> HashOf(const std::string& path, const FileHashes& known) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return SystemError(path, errno);
  const absl::Cleanup close_it = [&] { close(descriptor); };
  ABSTRACT_ASSIGN_OR_RETURN(const std::string state, StateOf(path, descriptor));
  if (const auto found = known.find(path); found != known.end() && found->second.state == state) {
    return found->second;
  }
  ABSTRACT_ASSIGN_OR_RETURN(const std::string hash, HashContents(path, descriptor));
  // What changed while it was read is hashed again the next time.
  ABSTRACT_ASSIGN_OR_RETURN(const std::string after, StateOf(path, descriptor));
  std::error_code error;
  const bool worth_keeping = fs::file_size(path, error) >= kWorthKeeping && after == state;
  return FileHash{worth_keeping ? state : "", hash};
}

FileHashes ReadCache(const std::string& path) {
  FileHashes known;
  if (path.empty()) return known;
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxCacheBytes);
  if (!text.ok()) return known;
  const absl::StatusOr<json> root = ParseJsonObject(*text, path);
  if (!root.ok()) return known;
  for (const auto& [file, entry] : root->items()) {
    if (!entry.is_object()) continue;
    const json state = entry.value("state", json()), hash = entry.value("sha256", json());
    if (state.is_string() && hash.is_string()) known[file] = {state, hash};
  }
  return known;
}

void WriteCache(const std::string& path, const FileHashes& hashes) {
  json root = json::object();
  for (const auto& [file, entry] : hashes) root[file] = {{"state", entry.state}, {"sha256", entry.hash}};
  WriteTextFileAtomically(path, root.dump(1, ' ', false, json::error_handler_t::replace) + "\n")
      .IgnoreError();
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

void Sha256::Add(const void* data, size_t bytes) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, bytes);
}

std::string Sha256::Hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest, &size);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest), size});
}

absl::StatusOr<std::string> HashOfFiles(std::vector<std::string> paths, const std::string& cache_path) {
  const auto name = [](const std::string& path) { return fs::path(path).filename().string(); };
  std::sort(paths.begin(), paths.end(),
            [&](const std::string& a, const std::string& b) { return name(a) < name(b); });
  FileHashes known = ReadCache(cache_path);
  std::vector<std::future<absl::StatusOr<FileHash>>> running;
  std::vector<std::string> real_paths;
  for (const std::string& path : paths) {
    std::error_code error;
    const fs::path real_path = fs::canonical(path, error);
    real_paths.push_back(error ? path : real_path.string());
    running.push_back(std::async(std::launch::async, HashOf, real_paths.back(), std::cref(known)));
  }
  std::vector<absl::StatusOr<FileHash>> hashes;
  for (auto& each : running) hashes.push_back(each.get());

  Sha256 all;
  bool learned = false;
  for (size_t i = 0; i < paths.size(); ++i) {
    ABSTRACT_ASSIGN_OR_RETURN(FileHash hash, std::move(hashes[i]));
    all.Add(absl::StrCat(hash.hash, "  ", name(paths[i]), "\n"));
    FileHash& kept = known[real_paths[i]];
    if (hash.state.empty() || kept.state == hash.state) continue;
    kept = std::move(hash);
    learned = true;
  }
  std::erase_if(known, [](const auto& entry) { return entry.second.state.empty(); });
  if (learned && !cache_path.empty()) WriteCache(cache_path, known);
  return all.Hex();
}

std::string DefaultHashCachePath() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder;
  if (cache != nullptr && *cache != '\0') {
    folder = cache;
  } else if (home != nullptr && *home != '\0') {
    folder = fs::path(home) / ".cache";
  } else {
    return "";
  }
  return (folder / "abstract" / "file_hashes.json").string();
}

}  // namespace mechinterp::engine
