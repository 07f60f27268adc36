#include "tests/fuzz/fuzz_target.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "services/engine/tokenizer/utf8.h"

namespace mechinterp::fuzz {
namespace {

namespace fs = std::filesystem;

// A tensor's name may have 4096 bytes, and a path comes before it.
constexpr size_t kMaxMessageBytes = 10'000;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (fs::temp_directory_path() / "abstract-fuzz.XXXXXX").string();
    Require(::mkdtemp(pattern.data()) != nullptr, "a folder for scratch files");
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

std::vector<std::pair<std::string, Target>>& Targets() {
  static auto& targets = *new std::vector<std::pair<std::string, Target>>();
  return targets;
}

bool AddTarget(std::string name, Target target) {
  Targets().emplace_back(std::move(name), target);
  return true;
}

void Require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

void RequireOk(const absl::Status& status, std::string_view what) {
  if (status.ok()) return;
  const std::string text = status.ToString();
  Require(false, absl::StrCat(absl::string_view(what.data(), what.size()), ": ", text));
}

void RequireRefusal(const absl::Status& status, std::string_view place) {
  const std::string message(status.message());
  const bool is_expected = absl::IsInvalidArgument(status) || absl::IsUnimplemented(status);
  if (!is_expected) RequireOk(status, "an unexpected kind of refusal");
  Require(!status.ok(), "a refusal is no success");
  Require(message.find(place) != std::string::npos, "a refusal names the place: " + message);
  Require(message.size() <= kMaxMessageBytes, "a refusal is short");
  Require(IsUtf8(message), "a refusal is UTF-8: " + message);
}

bool IsUtf8(std::string_view text) { return engine::ValidUtf8PrefixLength(text) == text.size(); }

std::string ScratchPath(std::string_view name) {
  static const ScratchFolder folder;
  return (folder.path() / name).string();
}

std::string ScratchFile(std::string_view name, std::string_view content) {
  std::string path = ScratchPath(name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  Require(file.good(), "a scratch file can be written");
  return path;
}

std::pair<std::string_view, std::string_view> CutAt(std::string_view input, char separator) {
  const size_t at = input.find(separator);
  if (at == std::string_view::npos) return {input, {}};
  return {input.substr(0, at), input.substr(at + 1)};
}

}  // namespace mechinterp::fuzz
