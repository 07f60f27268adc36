#include "clients/lib/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/lib/files.h"
#include "nlohmann/json.hpp"
#include "services/common/proto_json.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

using Json = nlohmann::json;

// What a journal's text holds up to its last whole line.
struct Contents {
  std::optional<Fingerprint> fingerprint;
  std::map<std::string, std::string, std::less<>> parts;
  size_t valid_bytes = 0;
};

Contents ParseLines(std::string_view text) {
  Contents contents;
  while (true) {
    const size_t end = text.find('\n', contents.valid_bytes);
    if (end == std::string_view::npos) return contents;
    const Json line = Json::parse(text.substr(contents.valid_bytes, end - contents.valid_bytes), nullptr,
                                  /*allow_exceptions=*/false);
    if (!line.is_object()) return contents;
    if (!contents.fingerprint.has_value()) {
      if (!line.contains("fingerprint")) return contents;
      contents.fingerprint = line["fingerprint"].get<Fingerprint>();
    } else {
      if (!line.contains("key") || !line.contains("value")) return contents;
      contents.parts[line["key"].get<std::string>()] = line["value"].dump();
    }
    contents.valid_bytes = end + 1;
  }
}

// "--limit was 5, now 15; --seed was 0, now 1"
std::string Differences(const Fingerprint& before, const Fingerprint& now) {
  std::vector<std::string> found;
  Fingerprint names = before;
  names.insert(now.begin(), now.end());
  for (const auto& [name, unused] : names) {
    const auto old_value = before.find(name);
    const auto new_value = now.find(name);
    const std::string was = old_value == before.end() ? "unset" : old_value->second;
    const std::string is = new_value == now.end() ? "unset" : new_value->second;
    if (was != is) found.push_back(absl::StrCat(name, " was ", was, ", now ", is));
  }
  return absl::StrJoin(found, "; ");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& path,
                                                       const Fingerprint& fingerprint, bool restart) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return FileError(path, "cannot open the journal", errno);
  std::unique_ptr<Journal> journal(new Journal(path, file));
  if (flock(file, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path,
                     ": another run of this experiment is writing here; wait for it or give another "
                     "--output-dir"));
  }
  ABSTRACT_RETURN_IF_ERROR(journal->Load(fingerprint, restart));
  return journal;
}

Journal::~Journal() {
  if (file_ >= 0) close(file_);
}

absl::Status Journal::Load(const Fingerprint& fingerprint, bool restart) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path_));
  Contents contents = ParseLines(text);
  if (contents.fingerprint == fingerprint && !restart) {
    if (ftruncate(file_, static_cast<off_t>(contents.valid_bytes)) != 0) {
      return FileError(path_, "cannot drop the half-written last line of", errno);
    }
    parts_ = std::move(contents.parts);
    resumed_part_count_ = static_cast<int>(parts_.size());
    return absl::OkStatus();
  }
  if (!contents.parts.empty()) {
    discard_reason_ = restart ? "--restart was given" : Differences(*contents.fingerprint, fingerprint);
    ABSTRACT_RETURN_IF_ERROR(WriteTextFileAtomically(path_ + ".old", text));
  }
  if (ftruncate(file_, 0) != 0) return FileError(path_, "cannot empty the journal", errno);
  return Append(Json{{"fingerprint", fingerprint}}.dump());
}

bool Journal::Find(std::string_view key, google::protobuf::Message* value) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = parts_.find(key);
  return found != parts_.end() && MessageFromJson(found->second, value).ok();
}

absl::Status Journal::Record(std::string_view key, const google::protobuf::Message& value) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string json, MessageToJson(value, JsonStyle::kCompact));
  const std::string line = absl::StrCat("{\"key\":", Json(std::string(key)).dump(), ",\"value\":", json, "}");
  const std::lock_guard<std::mutex> lock(mutex_);
  parts_[std::string(key)] = json;
  return Append(line);
}

absl::Status Journal::Append(const std::string& line) {
  const std::string record = line + "\n";
  const ssize_t written = write(file_, record.data(), record.size());
  if (written == static_cast<ssize_t>(record.size())) return absl::OkStatus();
  return FileError(path_, "cannot write the journal", written < 0 ? errno : ENOSPC);
}

absl::Status Journal::Remove() {
  if (unlink(path_.c_str()) != 0 && errno != ENOENT) return FileError(path_, "cannot delete", errno);
  return absl::OkStatus();
}

}  // namespace mechinterp
