#include "services/rpc/work_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/common/status.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;

// Tasks that wait for a gate, and tell when they run.
class Gate {
 public:
  std::function<void()> Task(const std::string& name = "") {
    return [this, name] {
      std::unique_lock lock(mutex_);
      begun_.push_back(name);
      changed_.notify_all();
      changed_.wait(lock, [this] { return open_; });
    };
  }
  void WaitForBegun(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return begun_.size() >= count; });
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  std::vector<std::string> begun() {
    const std::lock_guard lock(mutex_);
    return begun_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  std::vector<std::string> begun_;
};

WorkQueue::Task MakeTask(const std::string& client, std::function<void()> run,
                         Priority priority = Priority::kInteractive) {
  WorkQueue::Task task;
  task.client = client;
  task.priority = priority;
  task.run = std::move(run);
  return task;
}

void WaitForThreads(const WorkQueue& queue, int count) {
  while (queue.load().threads != count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(WorkQueue, RunsNoMoreThanItMayAndTheOthersLater) {
  Gate gate;
  WorkQueue queue({.max_running = 3, .max_queued = 100});
  for (int i = 0; i < 10; ++i) ASSERT_THAT(queue.Submit(MakeTask("a", gate.Task())), IsOk());
  gate.WaitForBegun(3);
  EXPECT_EQ(queue.load().running, 3);
  EXPECT_EQ(queue.load().queued, 7);
  EXPECT_EQ(queue.load().threads, 3);
  gate.Open();
  gate.WaitForBegun(10);
}

TEST(WorkQueue, TellsHowManyRunAndWait) {
  Gate gate;
  std::mutex mutex;
  std::vector<std::pair<int, int>> told;
  std::condition_variable changed;
  const auto tell = [&](int running, int queued) {
    const std::lock_guard lock(mutex);
    told.emplace_back(running, queued);
    changed.notify_all();
  };
  WorkQueue queue({.max_running = 1, .max_queued = 100, .on_change = tell});
  ASSERT_THAT(queue.Submit(MakeTask("a", gate.Task())), IsOk());
  gate.WaitForBegun(1);
  const auto second = queue.Submit(MakeTask("a", gate.Task()));
  ASSERT_THAT(second, IsOk());
  EXPECT_TRUE(queue.Withdraw(*second));
  gate.Open();
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return told.size() >= 5; });
  EXPECT_THAT(
      told, ElementsAre(std::pair(0, 1), std::pair(1, 0), std::pair(1, 1), std::pair(1, 0), std::pair(0, 0)));
}

TEST(WorkQueue, GivesItsThreadsBack) {
  WorkQueue queue({.max_running = 8, .max_queued = 200, .linger = absl::Milliseconds(5)});
  std::atomic<int> ran = 0;
  for (int i = 0; i < 100; ++i) ASSERT_THAT(queue.Submit(MakeTask("a", [&] { ++ran; })), IsOk());
  WaitForThreads(queue, 0);
  EXPECT_EQ(ran, 100);
  ASSERT_THAT(queue.Submit(MakeTask("a", [&] { ++ran; })), IsOk());
  WaitForThreads(queue, 0);
  EXPECT_EQ(ran, 101);
}

// One thread runs what was submitted while it was busy.
std::vector<std::string> OrderOf(std::vector<WorkQueue::Task> tasks) {
  Gate gate;
  std::vector<std::string> order;
  {
    WorkQueue queue({.max_running = 1, .max_queued = 100});
    EXPECT_THAT(queue.Submit(MakeTask("first", gate.Task())), IsOk());
    gate.WaitForBegun(1);
    std::atomic<size_t> left = tasks.size();
    for (WorkQueue::Task& task : tasks) {
      const std::string name = task.client;
      task.run = [&order, &left, name] {
        order.push_back(name);
        --left;
      };
      EXPECT_THAT(queue.Submit(std::move(task)), IsOk());
    }
    gate.Open();
    while (left > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return order;
}

TEST(WorkQueue, RunsTheMostUrgentFirst) {
  EXPECT_THAT(
      OrderOf({MakeTask("bulk", nullptr, Priority::kBulk), MakeTask("batch", nullptr, Priority::kBatch),
               MakeTask("now", nullptr, Priority::kInteractive)}),
      ElementsAre("now", "batch", "bulk"));
}

TEST(WorkQueue, RunsInTheOrderOfComingOtherwise) {
  EXPECT_THAT(OrderOf({MakeTask("a", nullptr), MakeTask("b", nullptr), MakeTask("a", nullptr)}),
              ElementsAre("a", "b", "a"));
}

TEST(WorkQueue, LetsInWhoHasTheFewestRunning) {
  Gate hold, gate;
  WorkQueue queue({.max_running = 3, .max_queued = 100});
  // Two of a's run, one of b's; of what waits, b's comes before a's third, c's before both.
  ASSERT_THAT(queue.Submit(MakeTask("a", hold.Task())), IsOk());
  ASSERT_THAT(queue.Submit(MakeTask("a", hold.Task())), IsOk());
  ASSERT_THAT(queue.Submit(MakeTask("b", gate.Task("b1"))), IsOk());
  hold.WaitForBegun(2);
  gate.WaitForBegun(1);
  for (const char* client : {"a", "b", "c"}) {
    ASSERT_THAT(queue.Submit(MakeTask(client, gate.Task(client))), IsOk());
  }
  gate.Open();
  gate.WaitForBegun(4);
  // b's first has ended when the next is chosen, so b and c have none running: b came first.
  EXPECT_THAT(gate.begun(), ElementsAre("b1", "b", "c", "a"));
  hold.Open();
}

TEST(WorkQueue, WeighsClients) {
  Gate hold, gate;
  WorkQueue queue({.max_running = 4, .max_queued = 100});
  ASSERT_THAT(queue.Submit(MakeTask("light", hold.Task())), IsOk());
  for (int i = 0; i < 2; ++i) ASSERT_THAT(queue.Submit(MakeTask("heavy", hold.Task())), IsOk());
  ASSERT_THAT(queue.Submit(MakeTask("other", gate.Task("other"))), IsOk());
  hold.WaitForBegun(3);
  gate.WaitForBegun(1);
  WorkQueue::Task light = MakeTask("light", gate.Task("light")),
                  heavy = MakeTask("heavy", gate.Task("heavy"));
  heavy.weight = 4;  // two running weigh less than one of the other's
  ASSERT_THAT(queue.Submit(std::move(light)), IsOk());
  ASSERT_THAT(queue.Submit(std::move(heavy)), IsOk());
  gate.Open();
  gate.WaitForBegun(3);
  EXPECT_THAT(gate.begun(), ElementsAre("other", "heavy", "light"));
  hold.Open();
}

TEST(WorkQueue, RefusesExactlyWhatIsTooMuch) {
  Gate gate;
  WorkQueue queue({.max_running = 1, .max_queued = 6, .max_queued_bytes = 1000});
  ASSERT_THAT(queue.Submit(MakeTask("a", gate.Task())), IsOk());
  gate.WaitForBegun(1);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(queue.Submit(MakeTask("a", gate.Task())), IsOk());
  const absl::Status own = queue.Submit(MakeTask("a", gate.Task())).status();
  EXPECT_EQ(ErrorReason(own), "CLIENT_QUEUE_FULL");
  EXPECT_TRUE(RetryDelay(own).has_value());
  for (int i = 0; i < 3; ++i) EXPECT_THAT(queue.Submit(MakeTask("b", gate.Task())), IsOk());
  EXPECT_EQ(ErrorReason(queue.Submit(MakeTask("c", gate.Task())).status()), "QUEUE_FULL");
  gate.Open();
}

TEST(WorkQueue, BoundsTheBytesThatWait) {
  Gate gate;
  WorkQueue queue({.max_running = 1, .max_queued = 100, .max_queued_bytes = 1000});
  ASSERT_THAT(queue.Submit(MakeTask("a", gate.Task())), IsOk());
  gate.WaitForBegun(1);
  const auto submit = [&](const std::string& client, int64_t bytes) {
    WorkQueue::Task task = MakeTask(client, gate.Task());
    task.bytes = bytes;
    return ErrorReason(queue.Submit(std::move(task)).status());
  };
  EXPECT_EQ(submit("a", 500), "");
  EXPECT_EQ(submit("a", 1), "CLIENT_QUEUE_FULL");
  EXPECT_EQ(submit("b", 499), "");
  EXPECT_EQ(submit("c", 2), "QUEUE_FULL");
  EXPECT_EQ(submit("c", 1), "");
  EXPECT_EQ(queue.load().queued_bytes, 1000);
  gate.Open();
}

TEST(WorkQueue, HoldsAClientToItsOwnBound) {
  Gate gate;
  WorkQueue queue({.max_running = 4, .max_queued = 100});
  const auto submit = [&](int most) {
    WorkQueue::Task task = MakeTask("a", gate.Task());
    task.client_max_tasks = most;
    return ErrorReason(queue.Submit(std::move(task)).status());
  };
  EXPECT_EQ(submit(2), "");
  EXPECT_EQ(submit(2), "");
  EXPECT_EQ(submit(2), "TOO_MANY_REQUESTS");
  EXPECT_EQ(submit(3), "");
  gate.Open();
}

TEST(WorkQueue, TakesBackWhatHasNotBegun) {
  Gate gate;
  WorkQueue queue({.max_running = 1, .max_queued = 100, .linger = absl::Milliseconds(5)});
  const auto running = queue.Submit(MakeTask("a", gate.Task("a")));
  gate.WaitForBegun(1);
  const auto waiting = queue.Submit(MakeTask("b", gate.Task("b")));
  ASSERT_THAT(waiting, IsOk());
  EXPECT_TRUE(queue.Withdraw(*waiting));
  EXPECT_FALSE(queue.Withdraw(*waiting));
  EXPECT_FALSE(queue.Withdraw(*running));
  EXPECT_EQ(queue.load().queued, 0);
  gate.Open();
  WaitForThreads(queue, 0);
  EXPECT_THAT(gate.begun(), ElementsAre("a"));
}

TEST(WorkQueue, LetsAnotherRunWhileOneWaitsForItsClient) {
  Gate gate, other;
  WorkQueue queue({.max_running = 1, .max_queued = 100});
  ASSERT_THAT(queue.Submit(MakeTask("slow",
                                    [&] {
                                      const WorkQueue::Pause pause(queue, "slow");
                                      gate.Task()();
                                    })),
              IsOk());
  gate.WaitForBegun(1);
  ASSERT_THAT(queue.Submit(MakeTask("quick", other.Task())), IsOk());
  other.WaitForBegun(1);
  EXPECT_EQ(queue.load().running, 1);
  EXPECT_EQ(queue.load().threads, 2);
  other.Open();
  gate.Open();
}

TEST(WorkQueue, RunsAllOnceFromManyThreads) {
  std::atomic<int> ran = 0, taken_back = 0, refused = 0;
  {
    WorkQueue queue({.max_running = 4, .max_queued = 64, .linger = absl::Microseconds(50)});
    std::vector<std::thread> clients;
    for (int c = 0; c < 4; ++c) {
      clients.emplace_back([&, name = std::string(1, static_cast<char>('a' + c))] {
        for (int i = 0; i < 2000; ++i) {
          const auto ticket = queue.Submit(MakeTask(name, [&, name] {
            if (ran % 7 == 0) const WorkQueue::Pause pause(queue, name);
            ++ran;
          }));
          if (!ticket.ok()) {
            ++refused;
          } else if (i % 3 == 0 && queue.Withdraw(*ticket)) {
            ++taken_back;
          }
        }
      });
    }
    for (std::thread& client : clients) client.join();
    while (queue.load().queued + queue.load().running > 0) std::this_thread::yield();
  }
  EXPECT_EQ(ran + taken_back + refused, 8000);
}

}  // namespace
}  // namespace mechinterp
