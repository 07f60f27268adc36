#include "tests/benchmarks/cpu_options.h"

#include <algorithm>
#include <thread>

#include "services/engine/kernels/parallel.h"

namespace mechinterp::benchmarks {

using engine::kernels::BFloat16Unit;

void AddCpuOptions(Command app, CpuOptions& options) {
  app.AddOption("--threads", options.threads, "Threads for arithmetic; 0: one per core").InRange(0, 1024);
  app.AddChoice(
      "--bf16-unit", options.bfloat16_unit,
      {{"none", BFloat16Unit::kNone}, {"pairs", BFloat16Unit::kPairs}, {"tiles", BFloat16Unit::kTiles}},
      "The CPU's best unit that may multiply bf16, where it has it: none, pairs (AVX-512 BF16) or "
      "tiles (AMX)");
}

void UseCpu(CpuOptions& options) {
  if (options.threads == 0) {
    options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  engine::kernels::SetThreadCount(options.threads);
  engine::kernels::LimitBFloat16Unit(options.bfloat16_unit);
}

}  // namespace mechinterp::benchmarks
