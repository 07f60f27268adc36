#ifndef TESTS_BENCHMARKS_LLAMA_BENCH_H_
#define TESTS_BENCHMARKS_LLAMA_BENCH_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "tests/benchmarks/options.h"

namespace mechinterp::benchmarks {

// llama.cpp's own benchmark program, run as a child process. Each call loads the
// file, warms up and measures once. Not thread-safe.
class LlamaBench {
 public:
  // Nothing when no GGUF file was named.
  static std::optional<LlamaBench> FromOptions(const BenchmarkOptions& options, int threads);

  // Tokens a second. Errors: what was run and how it ended.
  absl::StatusOr<double> Prefill(int tokens) { return Run(tokens, 0); }
  absl::StatusOr<double> Decode(int tokens) { return Run(0, tokens); }

 private:
  LlamaBench(std::string program, std::string gguf, int threads)
      : program_(std::move(program)), gguf_(std::move(gguf)), threads_(threads) {}
  absl::StatusOr<double> Run(int prompt_tokens, int new_tokens);

  std::string program_;
  std::string gguf_;
  int threads_;
};

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_LLAMA_BENCH_H_
