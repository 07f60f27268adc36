#include "tests/benchmarks/cpu_options.h"

#include <algorithm>
#include <map>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "services/engine/kernels/parallel.h"

namespace mechinterp::benchmarks {

using engine::kernels::BFloat16Unit;

void AddCpuOptions(CLI::App& app, CpuOptions& options) {
  app.add_option("--threads", options.threads, "Threads for arithmetic; 0: one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  const std::map<std::string, BFloat16Unit> units = {
      {"none", BFloat16Unit::kNone}, {"pairs", BFloat16Unit::kPairs}, {"tiles", BFloat16Unit::kTiles}};
  app.add_option("--bf16-unit", options.bfloat16_unit,
                 "The CPU's best unit that may multiply bf16: none, pairs (AVX-512 BF16) or tiles (AMX); "
                 "default: tiles, where it has them")
      ->transform(CLI::CheckedTransformer(units));
}

void UseCpu(CpuOptions& options) {
  if (options.threads == 0) {
    options.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  engine::kernels::SetThreadCount(options.threads);
  engine::kernels::LimitBFloat16Unit(options.bfloat16_unit);
}

}  // namespace mechinterp::benchmarks
