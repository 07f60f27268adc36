#ifndef SERVICES_MODEL_SCHEDULER_H_
#define SERVICES_MODEL_SCHEDULER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "services/engine/forward/executor.h"
#include "services/engine/forward/run_pass.h"
#include "services/model/gather_window.h"
#include "services/model/model_metrics.h"
#include "services/model/pass_planner.h"
#include "services/model/pass_times.h"

namespace mechinterp {

struct SchedulerOptions {
  // Rows of one forward pass, over all requests in it.
  int max_batch_rows = 512;
  // Rows per chunk of longer prompts, one chunk a pass; also the most other rows in a
  // pass with decoding steps. At most max_batch_rows.
  int prefill_chunk_rows = 256;
  GatherOptions gather;
  // How often a waiting request checks whether its client is still there.
  absl::Duration cancellation_poll = absl::Milliseconds(50);
};

// For whom a request runs.
struct RequestOwner {
  std::string client;  // requests of one client share its part of a pass
  double weight = 1;   // of the client; above 0
};

// Runs the model, in a thread of its own. Requests hand it segments from their
// handlers' threads and wait; every forward pass takes rows of as many requests
// as fit (pass_planner.h), after waiting a moment for those that were in the last
// one (gather_window.h). So decoding steps, prompts and sweeps of different clients
// share one reading of the weights, and a long request delays others by one pass at
// most. A request's results do not depend on the others. Where a pass fails, only
// those requests fail that fail without the others too.
//
// Thread-safe. Outlives its requests.
class Scheduler {
 public:
  class Request;
  // What runs a pass; another one in tests.
  using ForwardFunction = std::function<absl::Status(const engine::Model&, absl::Span<engine::Segment* const>,
                                                     absl::FunctionRef<bool()> abandoned)>;

  // `metrics` must outlive the scheduler.
  Scheduler(std::shared_ptr<const engine::Model> model, const SchedulerOptions& options,
            ModelMetrics& metrics, ForwardFunction forward = engine::RunPass);
  ~Scheduler();

  // Ends the service: what waits fails now, later calls fail at once, with
  // UNAVAILABLE. Does not wait for the pass in progress; requests in it fail when
  // its layer ends. May be called more than once.
  void Stop();

 private:
  struct Job;
  struct Part;
  struct Pass;

  absl::Status Admit(Request& request);
  void Leave(Request& request);
  absl::Status Run(Request& request, absl::Span<engine::Segment* const> segments, absl::Duration* waited);

  void Loop();
  // The following are called with the lock held.
  // Blocks until it is time for a pass; false when stopping.
  bool WaitForWork(std::unique_lock<std::mutex>& lock);
  Pass PlanNextPass();
  // How many rows may run beside decoding steps.
  int RowsBesideDecodes() const;
  bool IsAbandoned(absl::Span<const Part> parts) const;
  void FinishPass(Pass& pass, absl::Duration took);
  void Finish(Job& job, const absl::Status& status);
  void CountQueue();

  // Called without it. Where a pass fails its halves are tried, so that what cannot be
  // run, or cannot be run together, fails alone.
  void RunParts(absl::Span<Part> parts);
  absl::Status TryParts(absl::Span<Part> parts);
  static void Collect(const Part& part);

  const std::shared_ptr<const engine::Model> model_;
  const SchedulerOptions options_;
  const ForwardFunction forward_;
  ModelMetrics& metrics_;

  std::mutex mutex_;
  std::condition_variable changed_;  // for the engine's thread
  std::deque<Job*> waiting_;         // longest-waiting first
  GatherWindow gather_;
  PassTimes times_;
  int request_count_ = 0;
  int64_t last_request_id_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

// One RPC's use of the engine: the executor that its operations run on. For one
// thread at a time.
class Scheduler::Request final : public engine::Executor {
 public:
  // `is_cancelled` (null: never) is asked while the request waits, from the
  // thread that waits.
  Request(Scheduler& scheduler, std::function<bool()> is_cancelled, RequestOwner owner = {})
      : scheduler_(scheduler), is_cancelled_(std::move(is_cancelled)), owner_(std::move(owner)) {}
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;
  ~Request() override { Leave(); }

  // Asks for admission. UNAVAILABLE when the scheduler stops.
  absl::Status Admit() { return scheduler_.Admit(*this); }
  // Ends the admission, for another request to have. Run fails from then on.
  void Leave() { scheduler_.Leave(*this); }

  // CANCELLED as soon as the client has gone; while segments are in a pass, when the
  // pass ends, or its layer where no other request is in it. UNAVAILABLE when the
  // scheduler stops.
  absl::Status Run(absl::Span<engine::Segment* const> segments, absl::Duration* waited) override {
    return scheduler_.Run(*this, segments, waited);
  }
  const engine::Model& model() const override { return *scheduler_.model_; }
  // Passes that its segments had a part in so far.
  int64_t passes() const { return passes_; }
  int preferred_batch_rows() const override { return scheduler_.options_.max_batch_rows / 2; }

 private:
  friend class Scheduler;
  Scheduler& scheduler_;
  const std::function<bool()> is_cancelled_;
  const RequestOwner owner_;
  int64_t id_ = 0;  // 0: not admitted
  int64_t passes_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SCHEDULER_H_
