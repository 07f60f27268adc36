#ifndef TESTS_BENCHMARKS_SITE_SWEEP_H_
#define TESTS_BENCHMARKS_SITE_SWEEP_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/forward/executor.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/engine/operations/logit_metrics.h"

namespace mechinterp::benchmarks {

// Patching every site of a grid from a source prompt into a target, by the
// engine's sweep and by what it is measured against: the naive path, one whole
// forward pass for each site.
class SiteSweep {
 public:
  // resid_pre, attn_out and mlp_out of every layer at the last five positions,
  // each alone or all together.
  static SiteSweep OfPositions(const engine::ModelConfig& config, int prompt_tokens, bool joint);
  // z of every head at the last position.
  static SiteSweep OfHeads(const engine::ModelConfig& config, int prompt_tokens);
  // mlp_post of every layer at the last position, a sixteenth of the neurons at a time.
  static SiteSweep OfNeurons(const engine::ModelConfig& config, int prompt_tokens);

  int site_count() const { return static_cast<int>(sets_.size()); }

  struct Run {
    double seconds = 0;
    std::vector<engine::RunMetrics> metrics;  // of the sites run, in order
  };
  // The whole grid, from compiling the interventions and running the source on.
  absl::StatusOr<Run> Sweep(engine::Executor& executor) const;
  // `count` sites, evenly spread; `seconds` is of their passes alone. `sites`
  // receives their indices.
  absl::StatusOr<Run> Naive(engine::Executor& executor, int count, std::vector<int>& sites) const;

 private:
  SiteSweep(const engine::ModelConfig& config, int prompt_tokens);
  void Expand(const engine::SweepGrid& grid);
  engine::SweepGrid EmptyGrid() const;
  absl::StatusOr<std::vector<std::shared_ptr<const engine::HookPlan>>> Compile(
      engine::RunContext& context, const std::vector<int>& sites) const;

  engine::ModelConfig config_;
  engine::TokenizedPrompt target_;
  engine::TokenizedPrompt source_;
  engine::MetricOptions metrics_;
  std::vector<engine::InterventionSet> sets_;
};

// Largest absolute difference of what both measured: logit difference, KL
// divergence and the likeliest tokens' logits. Infinity when they measured
// different things or chose different tokens.
double MaxDifference(const engine::RunMetrics& a, const engine::RunMetrics& b);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_SITE_SWEEP_H_
