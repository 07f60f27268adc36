#ifndef CLIENTS_EXPERIMENTS_STORED_SOURCES_H_
#define CLIENTS_EXPERIMENTS_STORED_SOURCES_H_

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/lib/model_client.h"
#include "clients/lib/monitor.h"

namespace mechinterp {

// Activations of some prompts' runs, kept on the server for other runs to read.
// Made when first asked for, made again when the server has dropped them (they
// expire, and a restarted server has none), deleted at the end.
// Thread-safe. `client` must outlive it.
class StoredSources {
 public:
  // A set of handles that was complete when it was made.
  struct Handles {
    std::vector<std::string> handles;  // In the order of the prompts.
    int generation = 0;
  };

  // `name_patterns`: what to keep, as in ActivationFilter. `monitor`, which may be null, is told of
  // runs that are left behind.
  StoredSources(ModelClient* client, std::vector<v1::Prompt> prompts, std::vector<std::string> name_patterns,
                int concurrency, ExperimentMonitor* monitor = nullptr);
  // Deletes the runs that are left, unless the server has gone; runs expire.
  ~StoredSources();
  StoredSources(const StoredSources&) = delete;
  StoredSources& operator=(const StoredSources&) = delete;

  absl::StatusOr<Handles> Get();
  // Tells that a handle of this generation was NOT_FOUND: the next Get makes
  // new ones.
  void MarkLost(int generation);

 private:
  absl::Status Store();
  void Delete();
  void TellOfRemains(const std::vector<std::string>& handles, const absl::Status& reason);

  ModelClient* const client_;
  const std::vector<v1::Prompt> prompts_;
  const std::vector<std::string> name_patterns_;
  const int concurrency_;
  ExperimentMonitor* const monitor_;
  std::mutex mutex_;
  Handles current_;     // Guarded by mutex_.
  bool valid_ = false;  // Guarded by mutex_.
};

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_STORED_SOURCES_H_
