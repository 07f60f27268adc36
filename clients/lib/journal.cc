#include "clients/lib/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/lib/files.h"
#include "nlohmann/json.hpp"
#include "services/common/json_file.h"
#include "services/common/proto_json.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"

namespace mechinterp {
namespace {

using Json = nlohmann::json;

// Longer than any experiment's; a file beyond it is no journal of ours.
constexpr uint64_t kMaxBytes = uint64_t{1} << 30;

// What a journal's text holds up to its last whole line.
struct Contents {
  std::optional<Fingerprint> fingerprint;
  Journal::Parts parts;
  size_t valid_bytes = 0;
};

absl::Status Fault(const std::string& where, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", problem));
}

absl::StatusOr<Fingerprint> ParseFingerprint(const Json& line, const std::string& where) {
  const auto found = line.find("fingerprint");
  if (found == line.end() || !found->is_object()) return Fault(where, "fingerprint must be an object");
  Fingerprint fingerprint;
  for (const auto& [name, value] : found->items()) {
    if (!value.is_string()) return Fault(where, "fingerprint must be an object of texts");
    fingerprint[name] = value.get<std::string>();
  }
  return fingerprint;
}

absl::Status AddLine(absl::string_view text, const std::string& where, Contents& contents) {
  ABSTRACT_ASSIGN_OR_RETURN(const Json line, ParseJsonObject(text, where));
  if (!contents.fingerprint.has_value()) {
    ABSTRACT_ASSIGN_OR_RETURN(contents.fingerprint, ParseFingerprint(line, where));
    return absl::OkStatus();
  }
  const auto key = line.find("key");
  const auto value = line.find("value");
  if (key == line.end() || !key->is_string()) return Fault(where, "key must be a text");
  if (value == line.end() || !value->is_object()) return Fault(where, "value must be an object");
  contents.parts[key->get<std::string>()] = value->dump();
  return absl::OkStatus();
}

// InvalidArgument, naming the line, for what no journal has.
absl::StatusOr<Contents> ParseLines(absl::string_view text) {
  Contents contents;
  for (int line = 1;; ++line) {
    const size_t end = text.find('\n', contents.valid_bytes);
    if (end == absl::string_view::npos) return contents;
    ABSTRACT_RETURN_IF_ERROR(AddLine(text.substr(contents.valid_bytes, end - contents.valid_bytes),
                                     absl::StrCat("line ", line), contents));
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

absl::StatusOr<std::unique_ptr<Journal>> Journal::OpenLocked(const std::string& path) {
  // Without waiting: a pipe of this name would else hold the program forever.
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0644);
  if (file < 0) return FileError(path, "cannot open the journal", errno);
  std::unique_ptr<Journal> journal(new Journal(path, file));
  if (flock(file, LOCK_EX | LOCK_NB) == 0) return journal;
  return absl::FailedPreconditionError(
      absl::StrCat(path,
                   ": another run of this experiment is writing here; wait for it or give another "
                   "--output-dir"));
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& path,
                                                       const Fingerprint& fingerprint, bool restart) {
  ABSTRACT_ASSIGN_OR_RETURN(std::unique_ptr<Journal> journal, OpenLocked(path));
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxBytes);
  absl::StatusOr<Contents> contents = text.ok() ? ParseLines(*text) : text.status();
  if (contents.ok() && contents->fingerprint == fingerprint && !restart) {
    ABSTRACT_RETURN_IF_ERROR(journal->Resume(std::move(contents->parts), contents->valid_bytes));
    journal->fingerprint_ = fingerprint;
    return journal;
  }
  std::string reason;
  if (!contents.ok()) {
    reason = absl::StrCat("it is damaged: ", std::string(contents.status().message()));
  } else if (!contents->parts.empty()) {
    reason = restart ? "--restart was given" : Differences(*contents->fingerprint, fingerprint);
  }
  if (!reason.empty()) {
    ABSTRACT_ASSIGN_OR_RETURN(journal, SetAside(path, contents.ok() ? ".old" : ".damaged", reason));
  }
  ABSTRACT_RETURN_IF_ERROR(journal->Begin(fingerprint));
  return journal;
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::SetAside(const std::string& path, const std::string& suffix,
                                                           const std::string& reason) {
  const std::string aside = path + suffix;
  if (std::rename(path.c_str(), aside.c_str()) != 0) return FileError(path, "cannot set aside", errno);
  ABSTRACT_ASSIGN_OR_RETURN(std::unique_ptr<Journal> journal, OpenLocked(path));
  journal->set_aside_path_ = aside;
  journal->discard_reason_ = reason;
  return journal;
}

Journal::~Journal() {
  if (file_ >= 0) close(file_);
}

absl::Status Journal::Resume(Parts parts, size_t valid_bytes) {
  if (ftruncate(file_, static_cast<off_t>(valid_bytes)) != 0) {
    return FileError(path_, "cannot drop the half-written last line of", errno);
  }
  parts_ = std::move(parts);
  resumed_part_count_ = static_cast<int>(parts_.size());
  return absl::OkStatus();
}

absl::Status Journal::Begin(const Fingerprint& fingerprint) {
  fingerprint_ = fingerprint;
  if (ftruncate(file_, 0) != 0) return FileError(path_, "cannot empty the journal", errno);
  return Append(Json{{"fingerprint", fingerprint}}.dump());
}

bool Journal::Find(std::string_view key, google::protobuf::Message* value) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = parts_.find(key);
  if (found == parts_.end() || !MessageFromJson(found->second, value).ok()) return false;
  taken_.insert(found->first);
  return true;
}

absl::Status Journal::Record(std::string_view key, const google::protobuf::Message& value) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string json, MessageToJson(value, JsonStyle::kCompact));
  const std::lock_guard<std::mutex> lock(mutex_);
  parts_[std::string(key)] = json;
  taken_.insert(std::string(key));
  return AppendPart(key, json);
}

absl::Status Journal::AppendPart(std::string_view key, const std::string& json) {
  return Append(absl::StrCat("{\"key\":", Json(std::string(key)).dump(), ",\"value\":", json, "}"));
}

absl::Status Journal::Distrust(const std::vector<std::string>& doubted, const std::string& reason) {
  const std::lock_guard<std::mutex> lock(mutex_);
  discard_reason_ = absl::StrCat("it is damaged: ", reason);
  ABSTRACT_ASSIGN_OR_RETURN(const std::unique_ptr<Journal> fresh,
                            SetAside(path_, ".damaged", discard_reason_));
  set_aside_path_ = fresh->set_aside_path_;
  std::swap(file_, fresh->file_);
  for (const std::string& key : doubted) taken_.erase(key);
  std::erase_if(parts_, [this](const auto& part) { return taken_.count(part.first) == 0; });
  ABSTRACT_RETURN_IF_ERROR(Begin(Fingerprint(fingerprint_)));
  for (const auto& [key, json] : parts_) ABSTRACT_RETURN_IF_ERROR(AppendPart(key, json));
  return absl::OkStatus();
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
