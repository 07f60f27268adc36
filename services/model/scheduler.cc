#include "services/model/scheduler.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {

Scheduler::Scheduler(std::shared_ptr<const engine::Model> model, const SchedulerOptions& options,
                     ModelMetrics& metrics)
    : model_(std::move(model)), options_(options), metrics_(metrics), thread_([this] { Loop(); }) {}

Scheduler::~Scheduler() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  job_arrived_.notify_all();
  thread_.join();
}

Scheduler::Admission::~Admission() {
  if (scheduler_ == nullptr) return;
  std::lock_guard lock(scheduler_->mutex_);
  --scheduler_->request_count_;
  scheduler_->metrics_.requests_in_progress.Set(scheduler_->request_count_);
}

absl::StatusOr<Scheduler::Admission> Scheduler::Admit() {
  std::lock_guard lock(mutex_);
  if (request_count_ >= options_.max_requests) {
    return TryAgainLater(absl::StrCat(options_.max_requests, " requests are in progress; try again shortly"),
                         "TOO_MANY_REQUESTS", absl::Seconds(1));
  }
  ++request_count_;
  metrics_.requests_in_progress.Set(request_count_);
  return Admission(this);
}

absl::Status Scheduler::Run(absl::Span<engine::Segment* const> segments, absl::Duration* waited) {
  Job job;
  job.segments = segments;
  for (const engine::Segment* segment : segments) job.rows += segment->length();
  job.arrived = absl::Now();
  std::unique_lock lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  waiting_.push_back(&job);
  job_arrived_.notify_one();
  job_done_.wait(lock, [&] { return job.done; });
  if (waited != nullptr) *waited += job.waited;
  return job.status;
}

std::vector<Scheduler::Job*> Scheduler::TakeJobs() {
  std::vector<Job*> jobs;
  int rows = 0;
  while (!waiting_.empty() && (jobs.empty() || rows + waiting_.front()->rows <= options_.max_batch_rows)) {
    rows += waiting_.front()->rows;
    jobs.push_back(waiting_.front());
    waiting_.pop_front();
  }
  return jobs;
}

void Scheduler::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    job_arrived_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (stopping_) break;
    const std::vector<Job*> jobs = TakeJobs();
    lock.unlock();

    std::vector<engine::Segment*> segments;
    const absl::Time start = absl::Now();
    int rows = 0;
    for (Job* job : jobs) {
      job->waited = start - job->arrived;
      rows += job->rows;
      segments.insert(segments.end(), job->segments.begin(), job->segments.end());
    }
    const absl::Status status = engine::Forward(*model_, segments);
    metrics_.ObservePass(rows, static_cast<int>(segments.size()), absl::Now() - start);

    lock.lock();
    for (Job* job : jobs) {
      job->status = status;
      job->done = true;
    }
    job_done_.notify_all();
  }
  for (Job* job : waiting_) {
    job->status = absl::UnavailableError("the server is shutting down");
    job->done = true;
  }
  waiting_.clear();
  job_done_.notify_all();
}

}  // namespace mechinterp
