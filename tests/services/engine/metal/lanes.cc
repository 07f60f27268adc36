#ifdef __APPLE__  // hides the context functions otherwise
#define _XOPEN_SOURCE 700
#define _DARWIN_C_SOURCE
#endif
#include "tests/services/engine/metal/lanes.h"

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
  const void* stack = nullptr;
  size_t stack_bytes = 0;
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif
};

// Leaves `from` for `to`, and returns when something switches back.
void Switch(Context& from, Context& to) {
#if SHIM_ASAN
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.stack, to.stack_bytes);
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

// Made once and used for thread after thread: sanitizers take long to make one.
struct Fiber {
  Fiber();
  ~Fiber();
  Context context;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(kStackBytes);
  ThreadPosition position{};
  bool done = false;
  const Meeting* waits_for = nullptr;
  uint64_t waits_until = 0;
};

struct Threadgroup {
  std::vector<Meeting> simdgroups;
  Meeting barrier;
  const std::function<void(const ThreadPosition&)>* thread = nullptr;
  Fiber* running = nullptr;
};

Context scheduler;  // where Dispatch runs
Threadgroup* current = nullptr;

void RunFiber() {
#if SHIM_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stack, &scheduler.stack_bytes);
#endif
  for (;;) {
    Fiber& fiber = *current->running;
    (*current->thread)(fiber.position);
    fiber.done = true;
    Switch(fiber.context, scheduler);
  }
}

Fiber::Fiber() {
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = stack.get();
  context.machine.uc_stack.ss_size = kStackBytes;
  context.machine.uc_link = nullptr;
  context.stack = stack.get();
  context.stack_bytes = kStackBytes;
  makecontext(&context.machine, RunFiber, 0);
#if defined(__SANITIZE_THREAD__)
  context.tsan = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(context.tsan);
#endif
}

using Fibers = std::vector<std::unique_ptr<Fiber>>;

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
    Switch(fiber.context, scheduler);
  }
  fiber.waits_for = nullptr;
}

// Lets threads run until all are done. False if some wait for ever.
bool RunToTheEnd(Threadgroup& group, const Fibers& fibers, std::mt19937& random) {
  std::vector<Fiber*> waiting;
  for (const auto& fiber : fibers) waiting.push_back(fiber.get());
  std::shuffle(waiting.begin(), waiting.end(), random);
  while (!waiting.empty()) {
    bool progress = false;
    for (Fiber* fiber : waiting) {
      if (!CanRun(*fiber)) continue;
      progress = true;
      group.running = fiber;
      Switch(scheduler, fiber->context);
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
  static Fibers fibers;
  if (current != nullptr || group_threads < kLanes || group_threads % kLanes != 0) {
    return "a dispatch inside a dispatch, or a threadgroup that is not whole simdgroups";
  }
#if defined(__SANITIZE_THREAD__)
  scheduler.tsan = __tsan_get_current_fiber();
#endif
  if (static_cast<int>(fibers.size()) != group_threads) fibers.clear();
  while (static_cast<int>(fibers.size()) < group_threads) fibers.push_back(std::make_unique<Fiber>());
  Threadgroup group;
  group.thread = &thread;
  current = &group;
  bool ended = true;
  for (uint32_t y = 0; ended && y < groups_y; ++y) {
    for (uint32_t x = 0; ended && x < groups_x; ++x) {
      group.barrier = Meeting{group_threads};
      group.simdgroups.assign(group_threads / kLanes, Meeting{kLanes});
      for (int i = 0; i < group_threads; ++i) {
        Fiber& fiber = *fibers[i];
        fiber.position = {{x, y, 0}, static_cast<uint16_t>(i / kLanes), static_cast<uint16_t>(i % kLanes)};
        fiber.done = false;
        fiber.waits_for = nullptr;
      }
      ended = RunToTheEnd(group, fibers, random);
    }
  }
  current = nullptr;
  if (ended) return "";
  fibers.clear();  // some are in the middle of their thread for ever
  return "threads wait for others of their group that do not come";
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
