#ifndef SERVICES_MODEL_ACTIVATION_STORE_H_
#define SERVICES_MODEL_ACTIVATION_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "services/engine/interventions/intervention.h"
#include "services/model/model_metrics.h"

namespace mechinterp {

// Runs that clients keep on the server, under handles, for a time after their
// last use and up to a total size. Thread-safe; a run that was handed out stays
// valid after it is deleted.
class ActivationStore {
 public:
  using Clock = std::function<absl::Time()>;

  struct Entry {
    std::string handle;
    std::shared_ptr<const engine::RecordedRun> run;
    int64_t bytes = 0;
    absl::Time create_time;
    absl::Time expire_time;
    absl::Duration time_to_live;
  };

  // `metrics` must outlive the store.
  ActivationStore(int64_t max_bytes, ModelMetrics& metrics, Clock clock = absl::Now);

  // Returns a new handle that nobody can guess. RESOURCE_EXHAUSTED when the store
  // is full even without expired runs.
  absl::StatusOr<std::string> Put(std::shared_ptr<const engine::RecordedRun> run,
                                  absl::Duration time_to_live);
  // Prolongs the run's life. NOT_FOUND for unknown and expired handles.
  absl::StatusOr<Entry> Get(const std::string& handle);
  absl::Status Delete(const std::string& handle);
  // In the order of creation.
  std::vector<Entry> List();
  // Of the runs that List returns.
  int64_t total_bytes();

 private:
  void DropExpired();   // with the lock held
  void UpdateGauges();  // with the lock held

  const int64_t max_bytes_;
  ModelMetrics& metrics_;
  const Clock clock_;
  std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  int64_t total_bytes_ = 0;
};

// Bytes of a run's activations.
int64_t ByteCount(const engine::RecordedRun& run);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_ACTIVATION_STORE_H_
