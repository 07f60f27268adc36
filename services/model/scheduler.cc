#include "services/model/scheduler.h"

#include <algorithm>
#include <exception>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/engine/forward/segment_chunks.h"

namespace mechinterp {
namespace {

absl::Status ShuttingDown() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "the server is shutting down", "SHUTTING_DOWN");
}

absl::Status Cancelled() { return absl::CancelledError("the client cancelled the request"); }

// What a client is told of a forward pass that failed.
absl::Status ToRequestError(const absl::Status& status) {
  const bool memory = absl::IsResourceExhausted(status);
  return ErrorWithReason(status.code(), std::string(status.message()),
                         memory ? "OUT_OF_MEMORY" : "DEVICE_FAULT");
}

RowKind KindOf(const engine::Segment& segment) {
  if (segment.shared != nullptr || segment.entry_layer > 0) return RowKind::kSweep;
  return segment.length() == 1 && segment.first_position > 0 ? RowKind::kDecode : RowKind::kPrefill;
}

}  // namespace

// One Run of a request. Lives in its handler's stack; guarded by the scheduler's
// lock, but for `chunks` while the job is in a pass: then they are the engine
// thread's.
struct Scheduler::Job {
  Job(const Request& request, absl::Span<engine::Segment* const> segments, const engine::ModelConfig& config)
      : request_id(request.id_), owner(request.owner_), idle_since(absl::Now()) {
    chunks.reserve(segments.size());
    pending.reserve(segments.size());
    for (engine::Segment* segment : segments) {
      const int index = static_cast<int>(chunks.size());
      chunks.emplace_back(segment, config);
      pending.push_back({KindOf(*segment), segment->length(), chunks.back().CanSplit(), index});
    }
  }

  const int64_t request_id;
  const RequestOwner& owner;                  // the request's
  std::vector<engine::SegmentChunks> chunks;  // of each segment
  PendingRun pending;                         // of those with rows left
  bool in_pass = false;
  bool cancelled = false;
  // Of a pass that it was in; the engine thread's while it runs.
  absl::Status failure;
  bool abandoned = false;
  absl::Time idle_since;  // last time that it was not in a pass
  absl::Duration waited;
  int passes = 0;
  bool done = false;
  absl::Status status;
  std::condition_variable finished;
};

struct Scheduler::Part {
  Job* job;
  engine::SegmentChunks* chunks;
  int rows;
};

struct Scheduler::Pass {
  std::vector<Job*> jobs;
  std::vector<Part> parts;
  RowCounts rows = {};  // by kind
};

Scheduler::Scheduler(std::shared_ptr<const engine::Model> model, const SchedulerOptions& options,
                     ModelMetrics& metrics, ForwardFunction forward)
    : model_(std::move(model)),
      options_(options),
      forward_(std::move(forward)),
      metrics_(metrics),
      gather_(options.gather),
      thread_([this] { Loop(); }) {}

Scheduler::~Scheduler() {
  Stop();
  thread_.join();
}

void Scheduler::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  for (Job* job : waiting_) Finish(*job, ShuttingDown());
  waiting_.clear();
  CountQueue();
  changed_.notify_all();
}

absl::Status Scheduler::Admit(Request& request) {
  std::lock_guard lock(mutex_);
  if (stopping_) return ShuttingDown();
  request.id_ = ++last_request_id_;
  metrics_.requests_in_progress.Set(++request_count_);
  return absl::OkStatus();
}

void Scheduler::Leave(Request& request) {
  if (request.id_ == 0) return;
  std::lock_guard lock(mutex_);
  gather_.Settle(std::exchange(request.id_, 0));
  metrics_.requests_in_progress.Set(--request_count_);
  changed_.notify_all();
}

absl::Status Scheduler::Run(Request& request, absl::Span<engine::Segment* const> segments,
                            absl::Duration* waited) {
  if (request.id_ == 0) return absl::FailedPreconditionError("the request was not admitted");
  if (segments.empty()) return absl::OkStatus();
  Job job(request, segments, model_->config());
  std::unique_lock lock(mutex_);
  if (stopping_) return ShuttingDown();
  waiting_.push_back(&job);
  gather_.Settle(request.id_);
  CountQueue();
  changed_.notify_all();

  const auto poll = absl::ToChronoNanoseconds(options_.cancellation_poll);
  while (!job.finished.wait_for(lock, poll, [&] { return job.done; })) {
    if (job.cancelled || request.is_cancelled_ == nullptr) continue;
    lock.unlock();
    const bool is_cancelled = request.is_cancelled_();
    lock.lock();
    if (!is_cancelled || job.done) continue;
    job.cancelled = true;  // a job in a pass must stay until it ends
    if (job.in_pass) continue;
    waiting_.erase(std::find(waiting_.begin(), waiting_.end(), &job));
    CountQueue();
    Finish(job, Cancelled());
  }
  request.passes_ += job.passes;
  if (waited != nullptr) *waited += job.waited;
  return job.status;
}

void Scheduler::Finish(Job& job, const absl::Status& status) {
  if (!job.in_pass) job.waited += absl::Now() - job.idle_since;
  job.status = status;
  job.done = true;
  job.finished.notify_one();  // with the lock held: the job is gone soon after
}

void Scheduler::CountQueue() {
  int64_t rows = 0;
  for (const Job* job : waiting_) {
    for (const PendingSegment& segment : job->pending) rows += segment.rows;
  }
  metrics_.queued_rows.Set(static_cast<double>(rows));
}

bool Scheduler::WaitForWork(std::unique_lock<std::mutex>& lock) {
  std::optional<absl::Time> gathering_since;
  while (!stopping_) {
    if (waiting_.empty()) {
      gathering_since.reset();
      changed_.wait(lock);
      continue;
    }
    const absl::Time now = absl::Now();
    if (!gathering_since) gathering_since = now;
    const absl::Duration patience = gather_.Remaining(now);
    if (patience <= absl::ZeroDuration()) {
      metrics_.ObserveGatherWait(now - *gathering_since);
      return true;
    }
    changed_.wait_for(lock, absl::ToChronoNanoseconds(patience));
  }
  return false;
}

// A client's own prompts delay its own tokens as far as it pleases; others' by as much again as
// the tokens take by themselves.
int Scheduler::RowsBesideDecodes() const {
  std::set<std::string_view> decoding, others;  // clients, by what they wait for
  for (const Job* job : waiting_) {
    for (const PendingSegment& segment : job->pending) {
      (segment.kind == RowKind::kDecode ? decoding : others).insert(job->owner.client);
    }
  }
  const bool has_strangers =
      !decoding.empty() && !others.empty() && (decoding.size() > 1 || decoding != others);
  const int most = std::min(options_.prefill_chunk_rows, options_.max_batch_rows);
  const std::optional<int> fair = times_.RowsThatDoubleADecode();
  return has_strangers && fair ? std::clamp(*fair, std::min(8, most), most) : most;
}

Scheduler::Pass Scheduler::PlanNextPass() {
  std::vector<const PendingRun*> runs;
  std::vector<RunShare> shares;
  std::map<std::string, int> clients;
  for (const Job* job : waiting_) {
    runs.push_back(&job->pending);
    const int client = clients.try_emplace(job->owner.client, static_cast<int>(clients.size())).first->second;
    shares.push_back({client, job->owner.weight});
  }
  PassLimits limits = {options_.max_batch_rows,
                       std::min(options_.prefill_chunk_rows, options_.max_batch_rows)};
  limits.rows_beside_decodes = RowsBesideDecodes();
  const std::vector<PassPiece> pieces = PlanPass(runs, limits, shares);
  Pass pass;
  const absl::Time now = absl::Now();
  for (const PassPiece& piece : pieces) {
    Job& job = *waiting_[piece.run];
    PendingSegment& segment = job.pending[piece.segment];
    segment.rows -= piece.rows;
    pass.parts.push_back({&job, &job.chunks[segment.index], piece.rows});
    pass.rows[static_cast<int>(segment.kind)] += piece.rows;
    if (std::exchange(job.in_pass, true)) continue;
    pass.jobs.push_back(&job);
    ++job.passes;
    job.waited += now - job.idle_since;
  }
  waiting_.erase(
      std::remove_if(waiting_.begin(), waiting_.end(), [](const Job* job) { return job->in_pass; }),
      waiting_.end());
  CountQueue();
  return pass;
}

// What ran is not run again: if its results do not fit into memory, its request fails.
void Scheduler::Collect(const Part& part) {
  try {
    part.chunks->Collect();
  } catch (const std::exception& error) {
    part.job->failure =
        ToRequestError(absl::ResourceExhaustedError(absl::StrCat("results of a pass: ", error.what())));
  }
}

// Whether no request wants the results of these parts any more.
bool Scheduler::IsAbandoned(absl::Span<const Part> parts) const {
  return stopping_ ||
         std::all_of(parts.begin(), parts.end(), [](const Part& part) { return part.job->cancelled; });
}

absl::Status Scheduler::TryParts(absl::Span<Part> parts) {
  absl::Status status;
  std::vector<engine::Segment*> segments;
  try {
    segments.reserve(parts.size());
    for (const Part& part : parts) segments.push_back(part.chunks->Next(part.rows));
    status = forward_(*model_, segments, [&] {
      const std::lock_guard lock(mutex_);
      return IsAbandoned(parts);
    });
  } catch (const std::exception& error) {  // std::bad_alloc: chunks make copies
    status = absl::ResourceExhaustedError(absl::StrCat("chunks of a pass: ", error.what()));
  }
  if (status.ok()) {
    for (const Part& part : parts) Collect(part);
  } else {
    for (const Part& part : parts.first(segments.size())) part.chunks->TakeBack();
  }
  return status;
}

void Scheduler::RunParts(absl::Span<Part> parts) {
  const absl::Status status = TryParts(parts);
  if (status.ok()) return;
  if (absl::IsCancelled(status)) {  // FinishPass tells why
    for (const Part& part : parts) part.job->abandoned = true;
    return;
  }
  metrics_.failed_passes.Increment();
  if (parts.size() == 1) {
    parts[0].job->failure = ToRequestError(status);
    return;
  }
  const size_t half = parts.size() / 2;
  for (absl::Span<Part> some : {parts.first(half), parts.subspan(half)}) {
    // What has failed already is not tried any further.
    std::vector<Part> wanted;
    for (const Part& part : some) {
      if (part.job->failure.ok()) wanted.push_back(part);
    }
    if (!wanted.empty()) RunParts(absl::MakeSpan(wanted));
  }
}

void Scheduler::FinishPass(Pass& pass, absl::Duration took) {
  const absl::Time now = absl::Now();
  std::vector<int64_t> expected_back;
  for (Job* job : pass.jobs) {
    job->pending.erase(std::remove_if(job->pending.begin(), job->pending.end(),
                                      [](const PendingSegment& segment) { return segment.rows == 0; }),
                       job->pending.end());
    job->idle_since = now;
    job->in_pass = false;
    if (!job->failure.ok()) {
      Finish(*job, job->failure);
    } else if (!job->abandoned && job->pending.empty()) {
      expected_back.push_back(job->request_id);
      Finish(*job, absl::OkStatus());
    } else if (job->cancelled) {
      Finish(*job, Cancelled());
    } else if (stopping_) {
      Finish(*job, ShuttingDown());
    } else {
      waiting_.push_back(job);  // behind those that got no rows
    }
  }
  const int decode_rows = pass.rows[static_cast<int>(RowKind::kDecode)];
  times_.Observe(decode_rows, std::accumulate(pass.rows.begin(), pass.rows.end(), 0) - decode_rows, took);
  gather_.PassEnded(now, took, expected_back);
  CountQueue();
}

void Scheduler::Loop() {
  std::unique_lock lock(mutex_);
  while (WaitForWork(lock)) {
    Pass pass = PlanNextPass();
    lock.unlock();
    const absl::Time start = absl::Now();
    RunParts(absl::MakeSpan(pass.parts));
    const absl::Duration took = absl::Now() - start;
    metrics_.ObservePass(pass.rows, static_cast<int>(pass.parts.size()), took);
    lock.lock();
    FinishPass(pass, took);
  }
}

}  // namespace mechinterp
