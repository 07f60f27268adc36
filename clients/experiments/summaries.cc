#include "clients/experiments/summaries.h"

#include "services/common/statistics.h"

namespace mechinterp {

v1::Rate MakeRate(int success_count, int total_count) {
  const Interval interval = WilsonInterval(success_count, total_count);
  v1::Rate rate;
  rate.set_success_count(static_cast<uint32_t>(success_count));
  rate.set_total_count(static_cast<uint32_t>(total_count));
  rate.set_rate(total_count > 0 ? static_cast<double>(success_count) / total_count : 0);
  rate.set_lower(interval.lower);
  rate.set_upper(interval.upper);
  return rate;
}

v1::Estimate MakeEstimate(absl::Span<const double> samples, uint64_t seed) {
  const Interval interval = BootstrapMeanInterval(samples, seed);
  v1::Estimate estimate;
  estimate.set_mean(Mean(samples));
  estimate.set_lower(interval.lower);
  estimate.set_upper(interval.upper);
  estimate.set_sample_count(static_cast<uint32_t>(samples.size()));
  return estimate;
}

v1::Rate RefusalRate(absl::Span<const v1::JudgedResponse> responses, v1::PromptClass prompt_class,
                     bool at_start) {
  int refused = 0;
  int total = 0;
  for (const v1::JudgedResponse& response : responses) {
    if (response.prompt_class() != prompt_class) continue;
    ++total;
    if (at_start ? response.refused_at_start() : response.refused()) ++refused;
  }
  return MakeRate(refused, total);
}

}  // namespace mechinterp
