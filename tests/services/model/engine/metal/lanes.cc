#ifdef __APPLE__  // hides the context functions otherwise
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#endif
#include "tests/services/model/engine/metal/lanes.h"

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHIM_ASAN 1
#endif
#endif
#if SHIM_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#ifdef __APPLE__
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
#endif

namespace metal_shim {
namespace {

// Small: AddressSanitizer clears a stack's shadow whenever it is switched to.
constexpr size_t kStackBytes = 64 << 10;

// A stack of its own, known to the sanitizers.
struct Context {
  ucontext_t machine{};
  const void* stack = nullptr;  // of the fiber; of the calling thread once it has been left
  size_t stack_bytes = 0;
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif
};

// Leaves `from` for `to`, and returns when something switches back. `done`: `from`
// will never run again.
void Switch(Context& from, Context& to, bool done = false) {
#if SHIM_ASAN
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(done ? nullptr : &fake_stack, to.stack, to.stack_bytes);
#endif
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.tsan, 0);
#endif
  swapcontext(&from.machine, &to.machine);
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

// Threads that wait for each other. Values alternate between two rows: a thread may
// give its next one before a slower one has read the last.
struct Meeting {
  int size = 0;
  int arrived = 0;
  uint64_t held = 0;  // meetings that have taken place
  uint32_t values[2][kLanes] = {};
};

struct Fiber {
  Context context;
  char* stack = nullptr;
  ThreadPosition position{};
  bool started = false;
  bool done = false;
  const Meeting* waits_for = nullptr;
  uint64_t waits_until = 0;
};

struct Threadgroup {
  std::vector<Fiber> fibers;
  std::vector<Meeting> simdgroups;
  Meeting barrier;
  const std::function<void(const ThreadPosition&)>* thread = nullptr;
  Context scheduler;
  Fiber* running = nullptr;
};

Threadgroup* current = nullptr;

void RunFiber() {
  Fiber& fiber = *current->running;
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &current->scheduler.stack, &current->scheduler.stack_bytes);
#endif
  (*current->thread)(fiber.position);
  fiber.done = true;
  Switch(fiber.context, current->scheduler, /*done=*/true);
}

void Start(Fiber& fiber) {
  fiber.started = true;
  getcontext(&fiber.context.machine);
  fiber.context.machine.uc_stack.ss_sp = fiber.stack;
  fiber.context.machine.uc_stack.ss_size = kStackBytes;
  fiber.context.machine.uc_link = nullptr;
  fiber.context.stack = fiber.stack;
  fiber.context.stack_bytes = kStackBytes;
  makecontext(&fiber.context.machine, RunFiber, 0);
#if defined(__SANITIZE_THREAD__)
  fiber.context.tsan = __tsan_create_fiber(0);
#endif
}

void Finish([[maybe_unused]] Fiber& fiber) {
#if defined(__SANITIZE_THREAD__)
  if (fiber.started) __tsan_destroy_fiber(fiber.context.tsan);
#endif
}

bool CanRun(const Fiber& fiber) {
  return !fiber.done && (fiber.waits_for == nullptr || fiber.waits_for->held >= fiber.waits_until);
}

// Returns once every thread of the meeting has arrived.
void Meet(Meeting& meeting) {
  Fiber& fiber = *current->running;
  fiber.waits_for = &meeting;
  fiber.waits_until = meeting.held + 1;
  if (++meeting.arrived == meeting.size) {
    meeting.arrived = 0;
    ++meeting.held;
  } else {
    Switch(fiber.context, current->scheduler);
  }
  fiber.waits_for = nullptr;
}

// Lets threads run until all are done. False if some wait for ever.
bool RunToTheEnd(Threadgroup& group, std::mt19937& random) {
  std::vector<Fiber*> waiting;
  for (Fiber& fiber : group.fibers) waiting.push_back(&fiber);
  std::shuffle(waiting.begin(), waiting.end(), random);
  while (!waiting.empty()) {
    bool progress = false;
    for (Fiber* fiber : waiting) {
      if (!CanRun(*fiber)) continue;
      progress = true;
      if (!fiber->started) Start(*fiber);
      group.running = fiber;
      Switch(group.scheduler, fiber->context);
    }
    if (!progress) return false;
    std::erase_if(waiting, [](const Fiber* fiber) { return fiber->done; });
  }
  return true;
}

}  // namespace

std::string Dispatch(uint32_t groups_x, uint32_t groups_y, int group_threads,
                     const std::function<void(const ThreadPosition&)>& thread) {
  static std::mt19937 random(20240501);
  static std::vector<std::unique_ptr<char[]>> stacks;  // kept from dispatch to dispatch
  if (current != nullptr || group_threads < kLanes || group_threads % kLanes != 0) {
    return "a dispatch inside a dispatch, or a threadgroup that is not whole simdgroups";
  }
  Threadgroup group;
  group.thread = &thread;
#if defined(__SANITIZE_THREAD__)
  group.scheduler.tsan = __tsan_get_current_fiber();
#endif
  group.fibers.resize(group_threads);
  for (size_t i = 0; i < group.fibers.size(); ++i) {
    if (i == stacks.size()) stacks.push_back(std::make_unique<char[]>(kStackBytes));
    group.fibers[i].stack = stacks[i].get();
  }
  current = &group;
  bool ended = true;
  for (uint32_t y = 0; ended && y < groups_y; ++y) {
    for (uint32_t x = 0; ended && x < groups_x; ++x) {
      group.barrier = Meeting{group_threads};
      group.simdgroups.assign(group_threads / kLanes, Meeting{kLanes});
      for (int i = 0; i < group_threads; ++i) {
        Fiber& fiber = group.fibers[i];
        fiber.position = {{x, y, 0}, static_cast<uint16_t>(i / kLanes), static_cast<uint16_t>(i % kLanes)};
        fiber.started = fiber.done = false;
        fiber.waits_for = nullptr;
      }
      ended = RunToTheEnd(group, random);
      for (Fiber& fiber : group.fibers) Finish(fiber);
    }
  }
  current = nullptr;
  return ended ? "" : "threads wait for others of their group that do not come";
}

const uint32_t* Exchange(uint32_t bits) {
  const ThreadPosition& position = current->running->position;
  Meeting& simdgroup = current->simdgroups[position.simdgroup];
  uint32_t* values = simdgroup.values[simdgroup.held % 2];
  values[position.lane] = bits;
  Meet(simdgroup);
  return values;
}

void Barrier() { Meet(current->barrier); }

}  // namespace metal_shim
