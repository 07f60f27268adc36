// Patch sweeps, beside the naive path: one whole forward pass for each site.

#include <ostream>

#include "absl/strings/str_format.h"
#include "services/common/status_macros.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/measurement.h"
#include "tests/benchmarks/site_sweep.h"

namespace mechinterp::benchmarks {
namespace {

struct Agreement {
  double max_difference = 0;
  int compared = 0;
};

// One repetition of a sweep and of a sample of its sites the naive way.
absl::StatusOr<double> Measure(const SiteSweep& sweep, engine::Executor& executor, int naive_sites,
                               const std::string& name, Measurements& measurements, Agreement& agreement) {
  ABSTRACT_ASSIGN_OR_RETURN(const SiteSweep::Run ours, sweep.Sweep(executor));
  const double rate = sweep.site_count() / ours.seconds;
  measurements.Add(name + " sweep", "s", ours.seconds);
  measurements.Add(name + " sweep, speed", "runs/s", rate);
  if (naive_sites == 0) return ours.seconds;

  std::vector<int> sites;
  ABSTRACT_ASSIGN_OR_RETURN(const SiteSweep::Run naive, sweep.Naive(executor, naive_sites, sites));
  const double naive_rate = static_cast<double>(sites.size()) / naive.seconds;
  measurements.Add(name + " naive, speed", "runs/s", naive_rate);
  measurements.Add(
      name + absl::StrFormat(" naive, extrapolated from %d of %d sites", sites.size(), sweep.site_count()),
      "s", sweep.site_count() / naive_rate);
  measurements.AddRatio(name + " sweep / naive", rate, naive_rate);
  for (size_t i = 0; i < sites.size(); ++i) {
    agreement.max_difference =
        std::max(agreement.max_difference, MaxDifference(ours.metrics[sites[i]], naive.metrics[i]));
    ++agreement.compared;
  }
  return ours.seconds;
}

void PrintAgreement(const Agreement& agreement, std::ostream& out) {
  if (agreement.compared == 0) return;
  out << absl::StrFormat("  sweep against naive, %d results: largest difference %g%s\n", agreement.compared,
                         agreement.max_difference,
                         agreement.max_difference == 0 ? " (the same to the last bit)" : "");
}

// Runs each of the named sweeps in turn, `repetitions` times.
absl::Status RunSweeps(const std::vector<std::pair<std::string, SiteSweep>>& sweeps,
                       const std::shared_ptr<const engine::Model>& model, const BenchmarkOptions& options,
                       std::ostream& out) {
  engine::DirectExecutor executor(model);
  std::vector<int> sites;
  ABSTRACT_RETURN_IF_ERROR(sweeps.front().second.Naive(executor, 1, sites).status());  // warm up
  Measurements measurements;
  Agreement agreement;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    double total = 0;
    for (const auto& [name, sweep] : sweeps) {
      ABSTRACT_ASSIGN_OR_RETURN(const double seconds,
                                Measure(sweep, executor, options.naive_sites, name, measurements, agreement));
      total += seconds;
    }
    if (sweeps.size() > 1) measurements.Add("all sweeps together", "s", total);
  }
  for (const auto& [name, sweep] : sweeps) {
    out << "  " << name << ": " << sweep.site_count() << " patched runs\n";
  }
  measurements.Print(out);
  PrintAgreement(agreement, out);
  return absl::OkStatus();
}

constexpr int kPromptTokens = 24;

}  // namespace

absl::Status RunSweep(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  const int prompt_tokens = options.prompt_tokens_or(kPromptTokens);
  return RunSweeps(
      {{"positions", SiteSweep::OfPositions(model->config(), prompt_tokens, options.joint_positions)}}, model,
      options, out);
}

absl::Status RunHeads(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  const int prompt_tokens = options.prompt_tokens_or(kPromptTokens);
  return RunSweeps({{"heads", SiteSweep::OfHeads(model->config(), prompt_tokens)}}, model, options, out);
}

absl::Status RunNeurons(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  const int prompt_tokens = options.prompt_tokens_or(kPromptTokens);
  return RunSweeps({{"neurons", SiteSweep::OfNeurons(model->config(), prompt_tokens)}}, model, options, out);
}

absl::Status RunPair(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  const int prompt_tokens = options.prompt_tokens_or(kPromptTokens);
  return RunSweeps(
      {{"positions", SiteSweep::OfPositions(model->config(), prompt_tokens, options.joint_positions)},
       {"heads", SiteSweep::OfHeads(model->config(), prompt_tokens)}},
      model, options, out);
}

}  // namespace mechinterp::benchmarks
