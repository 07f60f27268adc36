#include "tests/benchmarks/options.h"

#include <random>

namespace mechinterp::benchmarks {

absl::StatusOr<std::shared_ptr<const engine::Model>> LoadModel(const BenchmarkOptions& options) {
  return engine::Model::Load(options.model, options.load);
}

engine::TokenizedPrompt RandomPrompt(const engine::ModelConfig& config, int length, unsigned seed) {
  std::mt19937 random(seed);
  engine::TokenizedPrompt prompt;
  for (int i = 0; i < length; ++i) {
    prompt.ids.push_back(
        static_cast<engine::TokenId>(random() % static_cast<unsigned>(config.vocabulary_size)));
  }
  return prompt;
}

double WeightOperations(const engine::ModelConfig& config, int tokens, int head_rows) {
  const double d_model = config.d_model;
  const double attention = d_model * (2.0 * config.query_width() + 2.0 * config.key_value_width());
  const double mlp = 3 * d_model * config.d_ff;
  return 2 *
         (tokens * config.layer_count() * (attention + mlp) + head_rows * d_model * config.vocabulary_size);
}

}  // namespace mechinterp::benchmarks
