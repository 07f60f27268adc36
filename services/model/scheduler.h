#ifndef SERVICES_MODEL_SCHEDULER_H_
#define SERVICES_MODEL_SCHEDULER_H_

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/status/statusor.h"
#include "services/model/engine/executor.h"
#include "services/model/model_metrics.h"

namespace mechinterp {

struct SchedulerOptions {
  // Requests in progress at once; more are turned away.
  int max_requests = 32;
  // Rows of one forward pass, over all requests in it. A request's own share is
  // at most half, so that a sweep leaves room for others.
  int max_batch_rows = 512;
};

// The one thread that runs the model. Handlers call Run from threads of their
// own; whatever is waiting when a forward pass ends goes together into the next
// one, first come first served. So decode steps, prefills and sweeps of
// different clients share the weights' way through the caches, and nobody's long
// request holds up another's next step for longer than one pass.
//
// Thread-safe. Outlives every call to Run.
class Scheduler : public engine::Executor {
 public:
  // `metrics` must outlive the scheduler.
  Scheduler(std::shared_ptr<const engine::Model> model, const SchedulerOptions& options,
            ModelMetrics& metrics);
  // Runs waiting at that time fail with UNAVAILABLE.
  ~Scheduler() override;

  // A request's right to use the engine, given back when destroyed.
  class Admission {
   public:
    explicit Admission(Scheduler* scheduler) : scheduler_(scheduler) {}
    Admission(Admission&& other) noexcept : scheduler_(std::exchange(other.scheduler_, nullptr)) {}
    Admission& operator=(Admission&&) = delete;
    ~Admission();

   private:
    Scheduler* scheduler_;
  };
  // RESOURCE_EXHAUSTED with RetryInfo when too many requests are in progress.
  absl::StatusOr<Admission> Admit();

  absl::Status Run(absl::Span<engine::Segment* const> segments, absl::Duration* waited) override;
  const engine::Model& model() const override { return *model_; }
  int preferred_batch_rows() const override { return options_.max_batch_rows / 2; }

 private:
  struct Job {
    absl::Span<engine::Segment* const> segments;
    int rows = 0;
    absl::Time arrived;
    absl::Duration waited;
    bool done = false;
    absl::Status status;
  };

  void Loop();
  // What goes into the next pass; at least one job. Called with the lock held.
  std::vector<Job*> TakeJobs();

  const std::shared_ptr<const engine::Model> model_;
  const SchedulerOptions options_;
  ModelMetrics& metrics_;

  std::mutex mutex_;
  std::condition_variable job_arrived_;
  std::condition_variable job_done_;
  std::deque<Job*> waiting_;
  int request_count_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_SCHEDULER_H_
