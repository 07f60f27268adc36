#ifndef SERVICES_MODEL_STORED_RUN_H_
#define SERVICES_MODEL_STORED_RUN_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp {

// What is known of a stored run without its values. Immutable once shared.
struct StoredRunInfo {
  struct Activation {
    engine::HookSite site;
    std::array<int64_t, 3> shape = {};  // [positions, heads, width]
    friend bool operator==(const Activation&, const Activation&) = default;
  };

  std::string handle;  // a secret: who knows it may use the run
  std::string owner;   // a name, never a credential; empty: everybody's
  engine::TokenizedPrompt prompt;
  std::vector<Activation> activations;  // by ascending site
  absl::Time create_time;
  absl::Duration time_to_live;  // after its last use
};

// Handle, owner and times left empty.
StoredRunInfo DescribeRun(const engine::RecordedRun& run);

// Bytes of a run's values: what clients are sent.
int64_t ByteCount(const engine::RecordedRun& run);
int64_t ByteCount(const StoredRunInfo& info);

// Bytes of memory that things take with all that belongs to them: what the allocator adds, map
// nodes, shapes, positions, prompts. Within a few percent of what glibc's allocator uses.
int64_t HeapBytes(size_t size);  // of one allocation
int64_t FootprintBytes(const engine::RecordedRun& run);
int64_t FootprintBytes(const StoredRunInfo& info);
// What FootprintBytes will say of the run that `info` describes, once it has been read.
int64_t RunFootprintBytes(const StoredRunInfo& info);

// A run that takes memory, counted as long as anybody holds it. Thread-safe.
class ResidentRun {
 public:
  // Adds its footprint to `total`, and takes it away when it goes.
  ResidentRun(std::shared_ptr<const engine::RecordedRun> run, std::shared_ptr<std::atomic<int64_t>> total);
  ~ResidentRun();
  ResidentRun(const ResidentRun&) = delete;
  ResidentRun& operator=(const ResidentRun&) = delete;

  const engine::RecordedRun& run() const { return *run_; }
  int64_t bytes() const { return bytes_; }
  // The run alone, which keeps `resident` alive.
  static std::shared_ptr<const engine::RecordedRun> RunOf(std::shared_ptr<const ResidentRun> resident);

 private:
  const std::shared_ptr<const engine::RecordedRun> run_;
  const std::shared_ptr<std::atomic<int64_t>> total_;
  const int64_t bytes_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_STORED_RUN_H_
