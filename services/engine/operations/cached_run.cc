#include "services/engine/operations/cached_run.h"

#include <algorithm>
#include <utility>

#include "services/common/status_macros.h"

namespace mechinterp::engine {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

// What hooks at some points take while they work: scores and patterns of a pass's rows are laid
// out for all keys of their prompt, heads' results there are before and after, receivers' inputs
// once for each head.
int64_t HookBytes(const ModelConfig& config, const PlanCompiler& compiler, int64_t pass_rows) {
  int64_t bytes = 0;
  const int64_t attended =
      std::max(compiler.LongestRunWith(HookPoint::kAttnScores), compiler.LongestRunWith(HookPoint::kPattern));
  bytes += std::min<int64_t>(attended, pass_rows) * attended * config.head_count * kFloatBytes;
  const auto for_each_head = [&](HookPoint point) {  // [T, heads, D]
    return compiler.LongestRunWith(point) * ShapeOf(point, config).size() * kFloatBytes;
  };
  bytes += 2 * for_each_head(HookPoint::kResult);
  bytes += std::max({for_each_head(HookPoint::kQInput), for_each_head(HookPoint::kKInput),
                     for_each_head(HookPoint::kVInput)});
  return bytes;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const RecordedRun>> RunWithCache(RunContext& context,
                                                                const TokenizedPrompt& prompt,
                                                                std::shared_ptr<const HookPlan> plan) {
  Segment segment;
  segment.tokens = prompt.ids;
  segment.plan = std::move(plan);
  Segment* const segments[] = {&segment};
  ABSTRACT_RETURN_IF_ERROR(context.Run(segments));
  return std::make_shared<RecordedRun>(RecordedRun{prompt, std::move(segment.activations)});
}

absl::StatusOr<std::vector<std::shared_ptr<const HookPlan>>> RunSourcesAndFinish(
    RunContext& context, const PlanCompiler& compiler) {
  const std::vector<SourceRunRequest>& requests = compiler.source_runs();
  std::vector<Segment> segments(requests.size());
  std::vector<Segment*> pointers;
  for (size_t i = 0; i < requests.size(); ++i) {
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = requests[i].prompt.length();
    for (const HookSite& site : requests[i].sites) {
      plan->captures[site] = {site, {requests[i].positions.begin(), requests[i].positions.end()}};
    }
    segments[i].tokens = requests[i].prompt.ids;
    segments[i].plan = std::move(plan);
    pointers.push_back(&segments[i]);
  }
  ABSTRACT_RETURN_IF_ERROR(context.Run(pointers));
  std::vector<std::shared_ptr<const RecordedRun>> runs;
  for (size_t i = 0; i < requests.size(); ++i) {
    runs.push_back(
        std::make_shared<RecordedRun>(RecordedRun{requests[i].prompt, std::move(segments[i].activations)}));
  }
  return compiler.Finish(runs);
}

int64_t ActivationBytes(const ModelConfig& config, const std::vector<HookSite>& sites, int64_t positions,
                        int64_t prompt_length) {
  int64_t values = 0;
  for (const HookSite& site : sites) {
    values += ElementCount(PublicShape(site.point, config, positions, prompt_length));
  }
  return values * kFloatBytes;
}

int64_t RequestBytes(const ModelConfig& config, const PlanCompiler& compiler, int64_t pass_rows,
                     int64_t run_bytes) {
  constexpr int64_t kRunBytes = 16 << 10;  // the objects of a run and of its passes
  int64_t making = compiler.LargestSumBytes();
  for (const SourceRunRequest& run : compiler.source_runs()) {
    making += kRunBytes + ActivationBytes(config, {run.sites.begin(), run.sites.end()},
                                          static_cast<int64_t>(run.positions.size()), run.prompt.length());
  }
  return compiler.PlanBytes() + kRunBytes + HookBytes(config, compiler, pass_rows) +
         std::max(making, run_bytes);
}

const std::vector<float>& InPublicOrder(HookPoint point, const RecordedActivation& recorded,
                                        std::vector<float>& room) {
  const std::vector<float>& values = recorded.values.values;
  if (!IsOverKeys(point)) return values;
  const int64_t positions = recorded.values.shape[0], heads = recorded.values.shape[1],
                width = recorded.values.shape[2];
  room.clear();
  room.reserve(values.size());
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t p = 0; p < positions; ++p) {
      const float* row = values.data() + (p * heads + head) * width;
      room.insert(room.end(), row, row + width);
    }
  }
  return room;
}

HostTensor ToPublicShape(HookPoint point, const ModelConfig& config, const RecordedActivation& recorded) {
  std::vector<float> room;
  return {PublicShape(point, config, recorded.values.shape[0], recorded.values.shape[2]),
          InPublicOrder(point, recorded, room)};
}

}  // namespace mechinterp::engine
