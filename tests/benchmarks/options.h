#ifndef TESTS_BENCHMARKS_OPTIONS_H_
#define TESTS_BENCHMARKS_OPTIONS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/interventions/positions.h"
#include "services/engine/model.h"
#include "services/engine/weights/load_options.h"
#include "tests/benchmarks/cpu_options.h"

namespace mechinterp::benchmarks {

// What all whole-run benchmarks share; see --help of abstract-benchmark.
struct BenchmarkOptions : CpuOptions {
  std::string model = "data/models/tiny-llama-refusal";
  // How the model is held and computed; unset: what the engine chooses.
  engine::LoadOptions load;
  int repetitions = 5;
  int prompt_tokens = 0;  // 0: the benchmark's own choice
  int new_tokens = 32;
  int streams = 32;
  int naive_sites = 8;
  bool joint_positions = false;
  // llama.cpp's program and the GGUF file for it; not compared when empty.
  std::string llama_bench = "llama-bench";
  std::string gguf;

  // attribution: also by libtorch's autograd, with fp32 weights of the same shape.
  bool autograd = false;
  // truth: kinds of planted models, all where none is named; of each, models of so many seeds; and
  // folders of trained ones.
  std::vector<std::string> kinds;
  int seeds = 2;
  std::vector<std::string> trained;

  int prompt_tokens_or(int preferred) const { return prompt_tokens > 0 ? prompt_tokens : preferred; }
};

absl::StatusOr<std::shared_ptr<const engine::Model>> LoadModel(const BenchmarkOptions& options);

// Tokens drawn by seed. What they say does not matter to the time they take.
engine::TokenizedPrompt RandomPrompt(const engine::ModelConfig& config, int length, unsigned seed);

// Floating-point operations (a multiply-add is two) of the matrix products with
// weights in a forward pass over `tokens` positions, `head_rows` of them through
// the output head. Attention and all else is not counted.
double WeightOperations(const engine::ModelConfig& config, int tokens, int head_rows);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_OPTIONS_H_
