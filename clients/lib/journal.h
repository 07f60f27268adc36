#ifndef CLIENTS_LIB_JOURNAL_H_
#define CLIENTS_LIB_JOURNAL_H_

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message.h"

namespace mechinterp {

// What an experiment's parts depend on: option names and values, the model's
// hash. Parts are only taken over from a run that had the same.
using Fingerprint = std::map<std::string, std::string>;

// Keeps the finished parts of a running experiment on disk, so that a killed
// run goes on where it stopped. A file of JSON lines: the fingerprint, then
// {"key", "value"} per part, appended with one write each; a half-written last
// line is dropped when the journal is opened again. While open the file is
// locked against a second run.
// Thread-safe. Errors name the file.
class Journal {
 public:
  // Key to JSON.
  using Parts = std::map<std::string, std::string, std::less<>>;

  // Opens or makes the journal at `path`, whose folder must exist. Parts of a
  // former run are kept when its fingerprint equals `fingerprint` and `restart`
  // is false; otherwise that journal is renamed to `path`.old, and one that is
  // damaged, or is no journal at all, to `path`.damaged: it never stands in the
  // way of another run.
  // Errors: FailedPrecondition when another run has it open.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& path,
                                                       const Fingerprint& fingerprint, bool restart);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Parts found when it was opened.
  int resumed_part_count() const { return resumed_part_count_; }
  // Why a former journal was not used, "--limit was 5, now 15", "it is damaged: line 3:
  // key must be a text"; empty if there was none or it was used.
  const std::string& discard_reason() const { return discard_reason_; }
  // Where that journal is now.
  const std::string& set_aside_path() const { return set_aside_path_; }

  // Fills `value` and returns true when the part is there.
  bool Find(std::string_view key, google::protobuf::Message* value) const;
  absl::Status Record(std::string_view key, const google::protobuf::Message& value);
  // For an experiment that finds a part to be none of its own, which shows only when it is read: sets the
  // file aside as Open does a damaged one, with `reason`, and goes on in a new one. That has what this
  // run has found or recorded so far, but for `doubted`; all else is forgotten.
  absl::Status Distrust(const std::vector<std::string>& doubted, const std::string& reason);
  // Deletes the file: the experiment is complete.
  absl::Status Remove();

 private:
  Journal(std::string path, int file) : path_(std::move(path)), file_(file) {}
  static absl::StatusOr<std::unique_ptr<Journal>> OpenLocked(const std::string& path);
  // Renames the file at `path`, and opens a new one in its place.
  static absl::StatusOr<std::unique_ptr<Journal>> SetAside(const std::string& path, const std::string& suffix,
                                                           const std::string& reason);
  absl::Status Resume(Parts parts, size_t valid_bytes);
  absl::Status Begin(const Fingerprint& fingerprint);
  absl::Status Append(const std::string& line);
  absl::Status AppendPart(std::string_view key, const std::string& json);

  const std::string path_;
  int file_;  // Descriptor, locked.
  int resumed_part_count_ = 0;
  std::string discard_reason_;
  std::string set_aside_path_;
  Fingerprint fingerprint_;
  mutable std::mutex mutex_;
  Parts parts_;                                       // Guarded by mutex_.
  mutable std::set<std::string, std::less<>> taken_;  // Found or recorded by this run; likewise.
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_JOURNAL_H_
