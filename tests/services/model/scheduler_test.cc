#include "services/model/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <thread>

#include "services/common/status.h"
#include "services/engine/forward/kv_cache.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using engine::Segment;
using testing::ElementsAre;
using Abandoned = absl::FunctionRef<bool()>;

// Stands in for the forward pass: a pass ends when the test says so.
class FakeEngine {
 public:
  // Rows of a pass by the first token of their segments, which tells whose they are.
  using Pass = std::map<int, int>;

  Scheduler::ForwardFunction function() {
    return [this](const engine::Model&, absl::Span<Segment* const> segments, Abandoned) {
      Pass pass;
      for (const Segment* segment : segments) pass[segment->tokens[0]] += segment->length();
      std::unique_lock lock(mutex_);
      passes_.push_back(pass);
      changed_.notify_all();
      changed_.wait(lock, [&] { return allowed_ > 0; });
      --allowed_;
      return pass.count(failing_) > 0 ? failure_ : status_;
    };
  }
  // Waits until so many passes have begun.
  void AwaitPasses(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::minutes(1), [&] { return passes_.size() >= count; }));
  }
  // Lets so many passes end, now or later.
  void Release(int passes = 1) {
    std::lock_guard lock(mutex_);
    allowed_ += passes;
    changed_.notify_all();
  }
  void FailWith(absl::Status status) {
    std::lock_guard lock(mutex_);
    status_ = std::move(status);
  }
  // Fails the passes that this one's segments are in.
  void FailPassesWith(int tag, absl::Status status) {
    std::lock_guard lock(mutex_);
    failing_ = tag;
    failure_ = std::move(status);
  }
  std::vector<Pass> passes() {
    std::lock_guard lock(mutex_);
    return passes_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Pass> passes_;
  int allowed_ = 0;
  absl::Status status_;
  int failing_ = -1;
  absl::Status failure_;
};
using Pass = FakeEngine::Pass;

class SchedulerTest : public testing::Test {
 protected:
  static constexpr int kFree = 1 << 20;  // passes end by themselves

  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.max_batch_rows = 64;
    options.prefill_chunk_rows = 16;
    options.cancellation_poll = absl::Milliseconds(1);
    return options;
  }
  std::unique_ptr<Scheduler> Start(const SchedulerOptions& options = Options()) {
    return std::make_unique<Scheduler>(fixture_.model(), options, metrics_, engine_.function());
  }
  // One step of a continuation, a prompt, a patched run; `tag` tells whose.
  static Segment Decode(int tag) {
    Segment segment = Prompt(tag, 1);
    segment.first_position = 9;
    return segment;
  }
  static Segment Prompt(int tag, int rows) {
    Segment segment;
    segment.tokens.assign(rows, tag);
    return segment;
  }
  std::vector<Segment> Sweep(int tag, int count, int rows) {
    std::vector<Segment> segments(count, Prompt(tag, rows));
    for (Segment& segment : segments) segment.shared = prefix_;
    return segments;
  }
  static absl::Status Run(Scheduler::Request& request, std::vector<Segment> segments) {
    std::vector<Segment*> pointers;
    for (Segment& segment : segments) pointers.push_back(&segment);
    return request.Run(pointers, nullptr);
  }
  // A new request that runs the segments in a thread of its own.
  std::future<absl::Status> Launch(Scheduler& scheduler, std::vector<Segment> segments,
                                   std::function<bool()> is_cancelled = nullptr) {
    return std::async(std::launch::async, [&scheduler, segments, is_cancelled] {
      Scheduler::Request request(scheduler, is_cancelled);
      const absl::Status admitted = request.Admit();
      return admitted.ok() ? Run(request, segments) : admitted;
    });
  }
  void AwaitQueuedRows(double rows) {
    for (int i = 0; i < 60000 && metrics_.queued_rows.Value() != rows; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_EQ(metrics_.queued_rows.Value(), rows);
  }

  engine::Fixture fixture_{"llama3-gqa"};
  std::shared_ptr<engine::KvCache> prefix_ = std::make_shared<engine::KvCache>(fixture_.model()->config());
  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  ModelMetrics metrics_{registry_};
  FakeEngine engine_;
};

TEST_F(SchedulerTest, CountsWhoIsAdmitted) {
  const auto scheduler = Start();
  Scheduler::Request first(*scheduler, nullptr);
  ASSERT_THAT(first.Admit(), IsOk());
  {
    Scheduler::Request second(*scheduler, nullptr);
    EXPECT_THAT(second.Admit(), IsOk());
    EXPECT_EQ(metrics_.requests_in_progress.Value(), 2);
  }
  EXPECT_EQ(metrics_.requests_in_progress.Value(), 1);
}

TEST_F(SchedulerTest, TellsARequestHowManyPassesItHadAPartIn) {
  engine_.Release(kFree);
  const auto scheduler = Start();
  Scheduler::Request request(*scheduler, nullptr);
  ASSERT_THAT(request.Admit(), IsOk());
  EXPECT_EQ(request.passes(), 0);
  ASSERT_THAT(Run(request, {Decode(1)}), IsOk());
  EXPECT_EQ(request.passes(), 1);
  ASSERT_THAT(Run(request, {Decode(1), Decode(2)}), IsOk());  // together
  EXPECT_EQ(request.passes(), 2);
  Scheduler::Request other(*scheduler, nullptr);
  ASSERT_THAT(other.Admit(), IsOk());
  ASSERT_THAT(Run(other, {Decode(1)}), IsOk());
  EXPECT_EQ(request.passes(), 2);
}

TEST_F(SchedulerTest, RunsOnlyWhatWasAdmitted) {
  const auto scheduler = Start();
  Scheduler::Request request(*scheduler, nullptr);
  EXPECT_EQ(Run(request, {Decode(1)}).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_THAT(request.Admit(), IsOk());
  request.Leave();
  EXPECT_EQ(Run(request, {Decode(1)}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(engine_.passes().empty());
}

// The real engine: answers do not depend on who else is there, nor on chunks.
TEST_F(SchedulerTest, ManyThreadsGetTheNumbersTheyWouldGetAlone) {
  SchedulerOptions options = Options();
  options.max_batch_rows = 20;
  options.prefill_chunk_rows = 5;
  Scheduler scheduler(fixture_.model(), options, metrics_);
  Segment reference;
  reference.tokens = fixture_.prompt("a").ids;
  ASSERT_GT(reference.length(), 3 * options.prefill_chunk_rows);
  reference.logits_rows = engine::LogitsRows::kAll;
  Segment* const one[] = {&reference};
  ASSERT_THAT(engine::RunPass(*fixture_.model(), one), IsOk());

  std::vector<std::thread> threads;
  std::vector<std::vector<float>> logits(12);
  for (int i = 0; i < 12; ++i) {
    threads.emplace_back([&, i] {
      Scheduler::Request request(scheduler, nullptr);
      ASSERT_THAT(request.Admit(), IsOk());
      for (int round = 0; round < 5; ++round) {
        Segment segment;
        segment.tokens = reference.tokens;
        segment.logits_rows = engine::LogitsRows::kAll;
        Segment* const mine[] = {&segment};
        EXPECT_THAT(request.Run(mine, nullptr), IsOk());
        logits[i] = segment.logits.values;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& values : logits) EXPECT_EQ(values, reference.logits.values);
}

TEST_F(SchedulerTest, SplitsALargeRunOverPasses) {
  const auto scheduler = Start();
  engine_.Release(kFree);
  EXPECT_THAT(Launch(*scheduler, Sweep(1, 100, 5)).get(), IsOk());
  int rows = 0;
  for (const Pass& pass : engine_.passes()) {
    EXPECT_LE(pass.at(1), 64);
    rows += pass.at(1);
  }
  EXPECT_EQ(rows, 500);
  EXPECT_EQ(engine_.passes().size(), 9u);  // 12 patched runs in each
}

TEST_F(SchedulerTest, RunsALongPromptInChunks) {
  const auto scheduler = Start();
  engine_.Release(kFree);
  EXPECT_THAT(Launch(*scheduler, {Prompt(1, 40)}).get(), IsOk());
  EXPECT_THAT(engine_.passes(), ElementsAre(Pass{{1, 16}}, Pass{{1, 16}}, Pass{{1, 8}}));
}

TEST_F(SchedulerTest, ADecodingStepWaitsForNoSweepAndNoPrompt) {
  const auto scheduler = Start();
  auto sweep = Launch(*scheduler, Sweep(1, 100, 5));
  engine_.AwaitPasses(1);
  auto prompt = Launch(*scheduler, {Prompt(2, 300)});
  AwaitQueuedRows(300);
  auto decode = Launch(*scheduler, {Decode(3)});
  AwaitQueuedRows(301);
  engine_.Release();
  engine_.AwaitPasses(2);
  const Pass second = engine_.passes()[1];
  EXPECT_EQ(second.at(3), 1);
  EXPECT_EQ(second.at(2), 8);  // a chunk of rows between the two of them
  EXPECT_EQ(second.at(1), 5);
  engine_.Release(kFree);
  EXPECT_THAT(decode.get(), IsOk());
  EXPECT_THAT(prompt.get(), IsOk());
  EXPECT_THAT(sweep.get(), IsOk());
}

TEST_F(SchedulerTest, WaitsForThoseOfTheLastPass) {
  SchedulerOptions options = Options();
  options.gather = {1e9, absl::Hours(1)};
  const auto scheduler = Start(options);
  auto blocker = Launch(*scheduler, {Decode(9)});
  engine_.AwaitPasses(1);

  std::promise<void> second_may_go;
  auto first = std::async(std::launch::async, [&] {
    Scheduler::Request request(*scheduler, nullptr);
    EXPECT_THAT(request.Admit(), IsOk());
    for (int step = 0; step < 3; ++step) EXPECT_THAT(Run(request, {Decode(1)}), IsOk());
  });
  auto second = std::async(std::launch::async, [&] {
    Scheduler::Request request(*scheduler, nullptr);
    EXPECT_THAT(request.Admit(), IsOk());
    EXPECT_THAT(Run(request, {Decode(2)}), IsOk());
    second_may_go.get_future().wait();
    EXPECT_THAT(Run(request, {Decode(2)}), IsOk());
  });
  AwaitQueuedRows(2);
  engine_.Release(2);  // the blocker's pass, and the first of both
  EXPECT_THAT(blocker.get(), IsOk());
  engine_.AwaitPasses(2);
  AwaitQueuedRows(1);  // the first is back, and waits for the second
  second_may_go.set_value();
  engine_.Release(kFree);
  second.get();  // leaves: nobody waits for it
  first.get();
  EXPECT_THAT(engine_.passes(),
              ElementsAre(Pass{{9, 1}}, Pass{{1, 1}, {2, 1}}, Pass{{1, 1}, {2, 1}}, Pass{{1, 1}}));
}

TEST_F(SchedulerTest, ASingleClientIsNotHeldUp) {
  SchedulerOptions options = Options();
  options.gather = {1e9, absl::Hours(1)};  // would be noticed
  const auto scheduler = Start(options);
  engine_.Release(kFree);
  Scheduler::Request request(*scheduler, nullptr);
  ASSERT_THAT(request.Admit(), IsOk());
  for (int step = 0; step < 20; ++step) EXPECT_THAT(Run(request, {Decode(1)}), IsOk());
  EXPECT_EQ(engine_.passes().size(), 20u);
}

TEST_F(SchedulerTest, ACancelledRequestLeavesTheQueueAtOnce) {
  const auto scheduler = Start();
  auto blocker = Launch(*scheduler, {Decode(1)});
  engine_.AwaitPasses(1);
  std::atomic<bool> cancelled = false;
  auto waiting = Launch(*scheduler, {Prompt(2, 30)}, [&] { return cancelled.load(); });
  AwaitQueuedRows(30);
  cancelled = true;
  EXPECT_EQ(waiting.get().code(), absl::StatusCode::kCancelled);  // no pass has ended
  EXPECT_EQ(metrics_.queued_rows.Value(), 0);
  engine_.Release(kFree);
  EXPECT_THAT(blocker.get(), IsOk());
  EXPECT_THAT(engine_.passes(), ElementsAre(Pass{{1, 1}}));
}

TEST_F(SchedulerTest, ACancelledRequestInAPassEndsWithIt) {
  const auto scheduler = Start();
  std::atomic<bool> cancelled = false;
  std::atomic<int> asked_since = 0;
  auto running = Launch(*scheduler, {Prompt(1, 100)}, [&] {
    if (cancelled) ++asked_since;
    return cancelled.load();
  });
  engine_.AwaitPasses(1);
  cancelled = true;
  while (asked_since == 0) std::this_thread::yield();
  AwaitQueuedRows(0);
  engine_.Release();
  EXPECT_EQ(running.get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine_.passes().size(), 1u);
}

TEST_F(SchedulerTest, StoppingFailsWhatWaitsAtOnce) {
  const auto scheduler = Start();
  auto last_step = Launch(*scheduler, {Decode(1)});
  engine_.AwaitPasses(1);
  auto waiting = Launch(*scheduler, {Decode(2)});
  AwaitQueuedRows(1);
  scheduler->Stop();
  const absl::Status status = waiting.get();  // no pass has ended
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ErrorReason(status), "SHUTTING_DOWN");
  EXPECT_EQ(Launch(*scheduler, {Decode(3)}).get().code(), absl::StatusCode::kUnavailable);
  engine_.Release();
  EXPECT_THAT(last_step.get(), IsOk()) << "what is done is done";
}

TEST_F(SchedulerTest, StoppingEndsALongRunAfterItsPass) {
  const auto scheduler = Start();
  auto prompt = Launch(*scheduler, {Prompt(1, 100)});
  engine_.AwaitPasses(1);
  scheduler->Stop();
  engine_.Release();
  EXPECT_EQ(prompt.get().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(engine_.passes().size(), 1u);
}

TEST_F(SchedulerTest, AFailedPassFailsItsRequestsAndNoOthers) {
  const auto scheduler = Start();
  engine_.FailWith(absl::InternalError("kernel fault"));
  engine_.Release();
  const absl::Status status = Launch(*scheduler, {Prompt(1, 100)}).get();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "kernel fault");
  EXPECT_EQ(ErrorReason(status), "DEVICE_FAULT");
  engine_.FailWith(absl::OkStatus());
  engine_.Release();
  EXPECT_THAT(Launch(*scheduler, {Decode(2)}).get(), IsOk());
}

TEST_F(SchedulerTest, LackOfMemoryEndsThePassAlone) {
  std::atomic<int> passes = 0;
  Scheduler scheduler(fixture_.model(), Options(), metrics_,
                      [&](const engine::Model&, absl::Span<Segment* const>, Abandoned) -> absl::Status {
                        if (passes++ == 0) throw std::bad_alloc();
                        return absl::OkStatus();
                      });
  const absl::Status status = Launch(scheduler, {Decode(1)}).get();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "OUT_OF_MEMORY");
  EXPECT_THAT(Launch(scheduler, {Decode(1)}).get(), IsOk());
}

// Three requests in one pass, one of which the device cannot compute.
TEST_F(SchedulerTest, WhatFailsInAPassFailsAlone) {
  const auto scheduler = Start();
  auto blocker = Launch(*scheduler, {Decode(9)});
  engine_.AwaitPasses(1);
  auto first = Launch(*scheduler, {Decode(1)});
  auto bad = Launch(*scheduler, Sweep(2, 3, 2));
  auto third = Launch(*scheduler, {Prompt(3, 5)});
  AwaitQueuedRows(1 + 6 + 5);
  engine_.FailPassesWith(2, absl::InternalError("kernel fault"));
  engine_.Release(kFree);
  EXPECT_THAT(blocker.get(), IsOk());
  EXPECT_THAT(first.get(), IsOk());
  EXPECT_THAT(third.get(), IsOk());
  EXPECT_EQ(ErrorReason(bad.get()), "DEVICE_FAULT");
}

// What does not fit into memory together is run in smaller passes.
TEST_F(SchedulerTest, APassThatIsTooLargeForMemoryIsRunInPieces) {
  std::vector<size_t> sizes;
  Scheduler scheduler(fixture_.model(), Options(), metrics_,
                      [&](const engine::Model&, absl::Span<Segment* const> segments, Abandoned) {
                        sizes.push_back(segments.size());
                        return segments.size() > 2 ? absl::ResourceExhaustedError("no memory")
                                                   : absl::OkStatus();
                      });
  EXPECT_THAT(Launch(scheduler, Sweep(1, 6, 2)).get(), IsOk());
  EXPECT_THAT(sizes, ElementsAre(6, 3, 1, 2, 3, 1, 2));
  EXPECT_EQ(metrics_.failed_passes.Value(), 3);
}

// Between layers, when all that are in it have gone.
TEST_F(SchedulerTest, APassThatNobodyWaitsForStops) {
  std::atomic<bool> first_gone = false, second_gone = false;
  std::atomic<int> passes = 0;
  std::atomic<bool> stopped_early = false;
  Scheduler scheduler(fixture_.model(), Options(), metrics_,
                      [&](const engine::Model&, absl::Span<Segment* const> segments, Abandoned abandoned) {
                        if (++passes == 1) {  // keeps the engine until both wait
                          while (metrics_.queued_rows.Value() != 2) std::this_thread::yield();
                          return absl::OkStatus();
                        }
                        EXPECT_EQ(segments.size(), 2u);
                        first_gone = true;
                        absl::SleepFor(absl::Milliseconds(20));  // many times the poll
                        stopped_early = abandoned();             // the second still waits
                        second_gone = true;
                        while (!abandoned()) std::this_thread::yield();
                        return absl::CancelledError("");
                      });
  auto blocker = Launch(scheduler, {Decode(9)});
  while (passes == 0) std::this_thread::yield();
  auto first = Launch(scheduler, {Decode(1)}, [&] { return first_gone.load(); });
  auto second = Launch(scheduler, {Decode(2)}, [&] { return second_gone.load(); });
  EXPECT_THAT(blocker.get(), IsOk());
  EXPECT_EQ(first.get().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(second.get().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(stopped_early);
}

TEST_F(SchedulerTest, TellsHowLongARequestWaited) {
  const auto scheduler = Start();
  auto blocker = Launch(*scheduler, {Decode(1)});
  engine_.AwaitPasses(1);
  Scheduler::Request request(*scheduler, nullptr);
  ASSERT_THAT(request.Admit(), IsOk());
  const absl::Time start = absl::Now();
  absl::Duration waited;
  auto run = std::async(std::launch::async, [&] {
    Segment segment = Decode(2);
    Segment* const segments[] = {&segment};
    return request.Run(segments, &waited);
  });
  AwaitQueuedRows(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  engine_.Release(2);
  EXPECT_THAT(run.get(), IsOk());
  EXPECT_GE(waited, absl::Milliseconds(20));
  EXPECT_LE(waited, absl::Now() - start);
}

TEST_F(SchedulerTest, CountsRowsByWhatTheyAreFor) {
  const auto scheduler = Start();
  engine_.Release(kFree);
  ASSERT_THAT(Launch(*scheduler, {Decode(1)}).get(), IsOk());
  ASSERT_THAT(Launch(*scheduler, {Prompt(1, 40)}).get(), IsOk());
  ASSERT_THAT(Launch(*scheduler, Sweep(1, 3, 7)).get(), IsOk());
  std::map<std::string, double> rows;
  for (const prometheus::MetricFamily& family : registry_->Collect()) {
    if (family.name != "mechinterp_forward_rows_total") continue;
    for (const auto& metric : family.metric) rows[metric.label[0].value] = metric.counter.value;
  }
  EXPECT_EQ(rows, (std::map<std::string, double>{{"decode", 1}, {"prefill", 40}, {"sweep", 21}}));
}

}  // namespace
}  // namespace mechinterp
