#ifndef TESTS_BENCHMARKS_CPU_OPTIONS_H_
#define TESTS_BENCHMARKS_CPU_OPTIONS_H_

#include "services/common/command_line.h"
#include "services/engine/kernels/bfloat16_unit.h"

namespace mechinterp::benchmarks {

// What of the CPU is used.
struct CpuOptions {
  int threads = 0;  // 0: one per core
  // The best unit that may multiply bf16.
  engine::kernels::BFloat16Unit bfloat16_unit = engine::kernels::BFloat16Unit::kTiles;
};

void AddCpuOptions(Command app, CpuOptions& options);

// From now on that is used; `threads` becomes their number.
void UseCpu(CpuOptions& options);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_CPU_OPTIONS_H_
