#ifndef TESTS_SERVICES_ENGINE_METAL_LANES_H_
#define TESTS_SERVICES_ENGINE_METAL_LANES_H_

#include <cstdint>
#include <functional>
#include <string>

namespace metal_shim {

// Runs Metal threads on the CPU. The threads of a threadgroup are fibers of the
// calling thread; 32 make a simdgroup. A fiber runs until it meets the others: in a
// simdgroup's exchange or at the threadgroup's barrier, where it waits for all of
// them, as the hardware's threads do. Threadgroups run one after the other. Fibers
// take their turns in an order that changes from dispatch to dispatch, so code that
// forgets a barrier is found out.
//
// One dispatch at a time in a process.

inline constexpr int kLanes = 32;

struct ThreadPosition {
  uint32_t group[3];
  uint16_t simdgroup;
  uint16_t lane;
};

// Runs every thread of a grid of whole threadgroups, `group_threads` (a multiple of
// 32) in each. Empty on success; else what went wrong: threads of a group that wait for
// ones that are gone or are waiting elsewhere, which on a GPU is undefined.
std::string Dispatch(uint32_t groups_x, uint32_t groups_y, int group_threads,
                     const std::function<void(const ThreadPosition&)>& thread);

// Only from a running thread: gives `bits` to the simdgroup and returns, by lane, what
// its 32 threads gave. Valid until the thread's next exchange.
const uint32_t* Exchange(uint32_t bits);

// Only from a running thread: waits for all threads of the threadgroup.
void Barrier();

}  // namespace metal_shim

#endif  // TESTS_SERVICES_ENGINE_METAL_LANES_H_
