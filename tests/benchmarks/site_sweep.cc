#include "tests/benchmarks/site_sweep.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/sweep.h"
#include "tests/benchmarks/measurement.h"
#include "tests/benchmarks/options.h"

namespace mechinterp::benchmarks {

using engine::HookPoint;

SiteSweep::SiteSweep(const engine::ModelConfig& config, int prompt_tokens)
    : config_(config),
      target_(RandomPrompt(config, prompt_tokens, 1)),
      source_(RandomPrompt(config, prompt_tokens, 2)) {
  metrics_.refusal_token_ids = {1, 2};
  metrics_.compliance_token_ids = {3};
  metrics_.top_token_count = 5;
}

engine::SweepGrid SiteSweep::EmptyGrid() const {
  engine::SweepGrid grid;
  engine::Replacement replacement;
  replacement.source.origin = source_;
  grid.prototype.edit = std::move(replacement);
  return grid;
}

void SiteSweep::Expand(const engine::SweepGrid& grid) {
  // What could be wrong with the grid is found when its sets are compiled.
  Violations violations;
  sets_ = engine::ExpandGrid(grid, config_, target_, violations.root()).sets;
}

SiteSweep SiteSweep::OfPositions(const engine::ModelConfig& config, int prompt_tokens, bool joint) {
  SiteSweep sweep(config, prompt_tokens);
  engine::SweepGrid grid = sweep.EmptyGrid();
  grid.points = {HookPoint::kResidPre, HookPoint::kAttnOut, HookPoint::kMlpOut};
  grid.prototype.selector.positions.ranges = {{-std::min(5, prompt_tokens), std::nullopt}};
  grid.split_positions = !joint;
  sweep.Expand(grid);
  return sweep;
}

SiteSweep SiteSweep::OfHeads(const engine::ModelConfig& config, int prompt_tokens) {
  SiteSweep sweep(config, prompt_tokens);
  engine::SweepGrid grid = sweep.EmptyGrid();
  grid.points = {HookPoint::kZ};
  grid.prototype.selector.positions.indices = {-1};
  grid.split_heads = true;
  sweep.Expand(grid);
  return sweep;
}

SiteSweep SiteSweep::OfNeurons(const engine::ModelConfig& config, int prompt_tokens) {
  SiteSweep sweep(config, prompt_tokens);
  engine::SweepGrid grid = sweep.EmptyGrid();
  grid.points = {HookPoint::kMlpPost};
  grid.prototype.selector.positions.indices = {-1};
  grid.dims_per_group = config.d_ff / 16;
  sweep.Expand(grid);
  return sweep;
}

absl::StatusOr<std::vector<std::shared_ptr<const engine::HookPlan>>> SiteSweep::Compile(
    engine::RunContext& context, const std::vector<int>& sites) const {
  Violations violations;
  engine::PlanCompiler compiler(config_);
  for (int site : sites) compiler.Add(target_, sets_[site], {}, violations.root());
  if (!violations.empty()) {
    return absl::InternalError(
        absl::StrCat(violations.list().front().field, ": ", violations.list().front().description));
  }
  return engine::RunSourcesAndFinish(context, compiler);
}

absl::StatusOr<SiteSweep::Run> SiteSweep::Sweep(engine::Executor& executor) const {
  const Clock::time_point start = Clock::now();
  engine::RunContext context{executor, {}, {}};
  std::vector<int> all(sets_.size());
  std::iota(all.begin(), all.end(), 0);
  engine::SweepRequest request;
  request.prompt = target_;
  request.source_prompt = source_;
  request.metrics = metrics_;
  ABSTRACT_ASSIGN_OR_RETURN(request.plans, Compile(context, all));
  Run run;
  run.metrics.resize(sets_.size());
  engine::SweepSink sink;
  sink.on_baselines = [](const engine::SweepBaselines&) { return absl::OkStatus(); };
  sink.on_result = [&](const engine::SweepResult& result) {
    run.metrics[result.set_index] = result.metrics;
    return absl::OkStatus();
  };
  ABSTRACT_RETURN_IF_ERROR(engine::RunPatchSweep(context, request, sink).status());
  run.seconds = SecondsSince(start);
  return run;
}

absl::StatusOr<SiteSweep::Run> SiteSweep::Naive(engine::Executor& executor, int count,
                                                std::vector<int>& sites) const {
  engine::RunContext context{executor, {}, {}};
  count = std::min(count, site_count());
  sites.clear();
  for (int i = 0; i < count; ++i) {
    sites.push_back(static_cast<int>(int64_t{i} * site_count() / count));
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto plans, Compile(context, sites));
  const engine::PrefillRequest clean_request{target_, nullptr};
  ABSTRACT_ASSIGN_OR_RETURN(const auto clean,
                            engine::Prefill(context, absl::MakeConstSpan(&clean_request, 1)));
  Run run;
  const Clock::time_point start = Clock::now();
  for (const auto& plan : plans) {
    const engine::PrefillRequest request{target_, plan};
    ABSTRACT_ASSIGN_OR_RETURN(const auto patched, engine::Prefill(context, absl::MakeConstSpan(&request, 1)));
    run.metrics.push_back(
        engine::MeasureLogits(patched.front().logits.values, clean.front().logits.values, metrics_));
  }
  run.seconds = SecondsSince(start);
  return run;
}

double MaxDifference(const engine::RunMetrics& a, const engine::RunMetrics& b) {
  constexpr double kDifferent = std::numeric_limits<double>::infinity();
  if (a.logit_difference.has_value() != b.logit_difference.has_value() ||
      a.kl_from_clean.has_value() != b.kl_from_clean.has_value() ||
      a.top_tokens.size() != b.top_tokens.size()) {
    return kDifferent;
  }
  double largest = std::max(std::abs(a.logit_difference.value_or(0) - b.logit_difference.value_or(0)),
                            std::abs(a.kl_from_clean.value_or(0) - b.kl_from_clean.value_or(0)));
  for (size_t i = 0; i < a.top_tokens.size(); ++i) {
    if (a.top_tokens[i].id != b.top_tokens[i].id) return kDifferent;
    largest = std::max(largest, std::abs(a.top_tokens[i].logit - b.top_tokens[i].logit));
  }
  return largest;
}

}  // namespace mechinterp::benchmarks
