#include "services/rpc/work_queue.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

constexpr absl::Duration kRetrySoon = absl::Seconds(1);

// A client's own bound where it is set, else half of what there is for all.
template <typename Number>
Number ShareOf(Number own, Number all) {
  return own > 0 ? own : std::max<Number>(1, all / 2);
}

}  // namespace

WorkQueue::WorkQueue(const WorkQueueOptions& options) : options_(options) {}

WorkQueue::~WorkQueue() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  changed_.notify_all();
  ended_.wait(lock, [this] { return load_.threads == 0; });
}

void WorkQueue::TellLoad() const {
  if (options_.on_change != nullptr) options_.on_change(load_.running, load_.queued);
}

absl::Status WorkQueue::CheckRoom(const Task& task, const Client& client) const {
  const int of_client = client.running + client.paused + client.queued;
  if (task.client_max_tasks > 0 && of_client >= task.client_max_tasks) {
    return TryAgainLater(absl::StrCat("you have ", of_client,
                                      " requests in progress, which is all that you "
                                      "may have; try again shortly"),
                         "TOO_MANY_REQUESTS", kRetrySoon);
  }
  // Those that a thread is about to take need no room to wait in.
  const int about_to_begin = std::max(0, options_.max_running - load_.running);
  if (load_.queued < about_to_begin) return absl::OkStatus();
  if (load_.queued - about_to_begin >= options_.max_queued ||
      load_.queued_bytes + task.bytes > options_.max_queued_bytes) {
    return TryAgainLater(
        absl::StrCat(load_.running, " requests are in progress and ", load_.queued, " (", load_.queued_bytes,
                     " bytes) wait, which is all that the server takes; "
                     "try again shortly"),
        "QUEUE_FULL", kRetrySoon);
  }
  const int own_tasks = ShareOf(options_.max_queued_per_client, options_.max_queued);
  const int64_t own_bytes = ShareOf(options_.max_queued_bytes_per_client, options_.max_queued_bytes);
  if (client.queued - about_to_begin >= own_tasks || client.queued_bytes + task.bytes > own_bytes) {
    return TryAgainLater(
        absl::StrCat(client.queued, " requests of yours (", client.queued_bytes,
                     " bytes) wait, which is all that one client may have; try again shortly"),
        "CLIENT_QUEUE_FULL", kRetrySoon);
  }
  return absl::OkStatus();
}

absl::StatusOr<WorkQueue::Ticket> WorkQueue::Submit(Task task) {
  std::lock_guard lock(mutex_);
  if (stopping_) return absl::UnavailableError("the server is shutting down");
  const auto found = clients_.find(task.client);
  if (absl::Status status = CheckRoom(task, found == clients_.end() ? Client() : found->second);
      !status.ok()) {
    return status;
  }
  Client& client = clients_[task.client];
  ++client.queued;
  client.queued_bytes += task.bytes;
  ++load_.queued;
  load_.queued_bytes += task.bytes;
  const Ticket ticket = ++last_ticket_;
  Queue& queue = queues_[static_cast<int>(task.priority)];
  queue.push_back({ticket, std::move(task)});
  TellLoad();
  StartThreadIfUseful();
  return ticket;
}

void WorkQueue::StartThreadIfUseful() {
  const int can_begin = std::min(load_.queued, options_.max_running - load_.running);
  if (can_begin <= 0) return;
  if (idle_threads_ >= can_begin) {  // one that was woken, or has just been made, still counts as idle
    changed_.notify_one();
    return;
  }
  try {
    std::thread([this] { Work(); }).detach();
    ++load_.threads;
    ++idle_threads_;
  } catch (const std::system_error&) {
    // The system has no thread to give: what runs now takes the task when it has ended.
  }
}

WorkQueue::Waiting WorkQueue::Remove(Queue& queue, Queue::iterator position) {
  Waiting waiting = std::move(*position);
  queue.erase(position);
  Client& client = clients_[waiting.task.client];
  --client.queued;
  client.queued_bytes -= waiting.task.bytes;
  --load_.queued;
  load_.queued_bytes -= waiting.task.bytes;
  return waiting;
}

WorkQueue::Waiting WorkQueue::TakeNext() {
  for (Queue& queue : queues_) {
    if (queue.empty()) continue;
    const auto share = [this](const Waiting& waiting) {
      return clients_[waiting.task.client].running / waiting.task.weight;
    };
    // The first of equals: it has waited longest.
    const auto next = std::min_element(
        queue.begin(), queue.end(), [&](const Waiting& a, const Waiting& b) { return share(a) < share(b); });
    return Remove(queue, next);
  }
  return {};
}

bool WorkQueue::Withdraw(Ticket ticket) {
  std::lock_guard lock(mutex_);
  for (Queue& queue : queues_) {
    const auto found = std::find_if(queue.begin(), queue.end(),
                                    [&](const Waiting& waiting) { return waiting.ticket == ticket; });
    if (found == queue.end()) continue;
    const Waiting withdrawn = Remove(queue, found);
    TellLoad();
    ForgetIfIdle(withdrawn.task.client);
    return true;
  }
  return false;
}

void WorkQueue::ForgetIfIdle(const std::string& client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  if (found->second.running + found->second.paused + found->second.queued == 0) clients_.erase(found);
}

WorkQueue::Load WorkQueue::load() const {
  std::lock_guard lock(mutex_);
  return load_;
}

void WorkQueue::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    const bool has_work = changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.linger),
                                            [this] { return stopping_ || HasNext(); });
    if (stopping_ || !has_work) break;
    --idle_threads_;
    Waiting next = TakeNext();
    const std::string client = next.task.client;
    ++clients_[client].running;
    ++load_.running;
    TellLoad();
    lock.unlock();
    next.task.run();
    next.task.run = nullptr;  // what it holds goes without the lock
    lock.lock();
    ++idle_threads_;
    --load_.running;
    --clients_[client].running;
    TellLoad();
    ForgetIfIdle(client);
  }
  --idle_threads_;
  --load_.threads;
  ended_.notify_all();  // with the lock held: the queue is gone soon after
}

WorkQueue::Pause::Pause(WorkQueue& queue, const std::string& client) : queue_(queue), client_(client) {
  std::lock_guard lock(queue_.mutex_);
  --queue_.load_.running;
  --queue_.clients_[client_].running;
  ++queue_.clients_[client_].paused;
  queue_.TellLoad();
  queue_.StartThreadIfUseful();
}

// May leave one more running than there should be, until one ends: what has begun goes on.
WorkQueue::Pause::~Pause() {
  std::lock_guard lock(queue_.mutex_);
  ++queue_.load_.running;
  ++queue_.clients_[client_].running;
  --queue_.clients_[client_].paused;
  queue_.TellLoad();
}

}  // namespace mechinterp
