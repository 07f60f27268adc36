#ifndef SERVICES_ENGINE_KERNELS_ROW_THREADS_H_
#define SERVICES_ENGINE_KERNELS_ROW_THREADS_H_

#include <algorithm>
#include <cstdint>

#include "services/engine/kernels/parallel.h"

namespace mechinterp::engine::kernels {

// What is worth a thread: values that are added or multiplied, and those whose
// exponential is taken.
inline constexpr int64_t kValuesWorthAThread = 1 << 15;
inline constexpr int64_t kExponentialsWorthAThread = 1 << 11;

// Calls function(i) for each of n rows of `width`, each computed as it would be alone.
template <typename Function>
void ForRows(int64_t n, int64_t width, Function&& function) {
  ParallelFor(0, n, std::max<int64_t>(1, kValuesWorthAThread / std::max<int64_t>(1, width)),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) function(i);
              });
}

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_ROW_THREADS_H_
