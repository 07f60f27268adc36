#ifndef SERVICES_RPC_WORK_QUEUE_H_
#define SERVICES_RPC_WORK_QUEUE_H_

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/rpc/caller.h"

namespace mechinterp {

struct WorkQueueOptions {
  // Tasks that run at once, each on a thread.
  int max_running = 32;
  // Tasks that wait, and the bytes that they hold.
  int max_queued = 256;
  int64_t max_queued_bytes = int64_t{256} << 20;
  // What one client may have of each; 0: half of it.
  int max_queued_per_client = 0;
  int64_t max_queued_bytes_per_client = 0;
  // How long a thread without work stays.
  absl::Duration linger = absl::Seconds(2);
  // Told how many run and wait whenever that changes, with the queue's lock held; may be null.
  std::function<void(int running, int queued)> on_change = nullptr;
};

// Runs tasks of many clients on a few threads. What waits costs no thread. The next one to run
// is the most urgent; of these, that of the client who has the fewest running for its weight;
// of these, the one that has waited longest. So a client with a full queue does not keep
// another one out. Thread-safe.
class WorkQueue {
 public:
  struct Task {
    std::string client;
    double weight = 1;
    Priority priority = Priority::kInteractive;
    int64_t bytes = 0;         // held while it waits
    int client_max_tasks = 0;  // running and waiting, of this client; 0: no bound of its own
    std::function<void()> run;
  };
  // Names a task that was taken.
  using Ticket = int64_t;

  // How much there is of what.
  struct Load {
    int running = 0;
    int queued = 0;
    int64_t queued_bytes = 0;
    int threads = 0;
  };

  explicit WorkQueue(const WorkQueueOptions& options);
  // Waits for the tasks that run. Those that wait never run.
  ~WorkQueue();

  // Errors: RESOURCE_EXHAUSTED with RetryInfo and reason TOO_MANY_REQUESTS, QUEUE_FULL or
  // CLIENT_QUEUE_FULL. `task.run` may begin before this returns.
  absl::StatusOr<Ticket> Submit(Task task);
  // Takes a task back: true where it had not begun, and never will.
  bool Withdraw(Ticket ticket);

  Load load() const;

  // While it lives, the task of this thread counts as not running: it waits for its client, and
  // another one may run in its stead.
  class Pause {
   public:
    explicit Pause(WorkQueue& queue, const std::string& client);
    ~Pause();
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    WorkQueue& queue_;
    const std::string client_;
  };

 private:
  struct Waiting {
    Ticket ticket;
    Task task;
  };
  struct Client {
    int running = 0;
    int paused = 0;
    int queued = 0;
    int64_t queued_bytes = 0;
  };
  using Queue = std::list<Waiting>;

  absl::Status CheckRoom(const Task& task, const Client& client) const;
  void Work();
  // The following are called with the lock held.
  void TellLoad() const;
  void StartThreadIfUseful();
  bool HasNext() const { return load_.running < options_.max_running && load_.queued > 0; }
  Waiting TakeNext();
  Waiting Remove(Queue& queue, Queue::iterator position);
  void ForgetIfIdle(const std::string& client);

  const WorkQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // for threads without work
  std::condition_variable ended_;    // for the destructor
  std::array<Queue, kPriorityCount> queues_;
  std::map<std::string, Client> clients_;
  Load load_;
  int idle_threads_ = 0;
  Ticket last_ticket_ = 0;
  bool stopping_ = false;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_WORK_QUEUE_H_
