#include "services/engine/operations/mean_activations.h"

#include <algorithm>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"

namespace mechinterp::engine {
namespace {

// Where the batch ends that begins with prompt `first`: as many rows as are worth having ready, and
// one prompt at least. `length_of`: of a prompt.
template <typename LengthOf>
size_t EndOfBatch(size_t first, size_t count, int batch_rows, LengthOf length_of) {
  int64_t rows = 0;
  size_t end = first;
  while (end < count && (end == first || rows + length_of(end) <= batch_rows)) rows += length_of(end++);
  return end;
}

// Takes one more run's values in.
void Add(const HostTensor& values, int64_t count, ActivationMoments& moments) {
  if (count == 1) {
    moments.shape = values.shape;
    moments.mean.assign(values.values.size(), 0);
    moments.variance.assign(values.values.size(), 0);  // for now the sum of squares
  }
  for (size_t i = 0; i < values.values.size(); ++i) {
    const double change = values.values[i] - moments.mean[i];
    moments.mean[i] += change / static_cast<double>(count);
    moments.variance[i] += change * (values.values[i] - moments.mean[i]);
  }
}

}  // namespace

absl::StatusOr<std::map<HookSite, ActivationMoments>> RunMeanActivations(
    RunContext& context, const MeanActivationsRequest& request) {
  const size_t count = request.prompts.size();
  std::map<HookSite, ActivationMoments> moments;
  size_t end = 0;
  for (size_t first = 0; first < count; first = end) {
    end = EndOfBatch(first, count, context.executor.preferred_batch_rows(),
                     [&](size_t i) { return request.prompts[i].length(); });
    std::vector<Segment> segments(end - first);
    std::vector<Segment*> pointers;
    for (size_t i = first; i < end; ++i) {
      segments[i - first].tokens = request.prompts[i].ids;
      segments[i - first].plan = request.plans[i];
      pointers.push_back(&segments[i - first]);
    }
    ABSTRACT_RETURN_IF_ERROR(context.Run(pointers));
    for (size_t i = first; i < end; ++i) {
      for (const auto& [site, recorded] : segments[i - first].activations) {
        Add(recorded.values, static_cast<int64_t>(i) + 1, moments[site]);
      }
    }
  }
  for (auto& [site, activation] : moments) {
    for (double& value : activation.variance) value /= static_cast<double>(std::max<size_t>(count, 2) - 1);
  }
  return moments;
}

int64_t MeanActivationsBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                             const std::vector<int>& prompt_lengths, int batch_rows) {
  size_t largest_batch = 0, end = 0;
  for (size_t first = 0; first < prompt_lengths.size(); first = end) {
    end = EndOfBatch(first, prompt_lengths.size(), batch_rows, [&](size_t i) { return prompt_lengths[i]; });
    largest_batch = std::max(largest_batch, end - first);
  }
  const int64_t run = ActivationBytes(config, sites, positions, 0);
  // Mean and variance in double precision, and one site's in single, as they are sent.
  const int64_t moments = 4 * run + 2 * run / std::max<int64_t>(1, static_cast<int64_t>(sites.size()));
  constexpr int64_t kSegmentBytes = 4 << 10;
  return static_cast<int64_t>(largest_batch) * (run + kSegmentBytes) + moments;
}

}  // namespace mechinterp::engine
