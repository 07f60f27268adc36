#include "services/engine/operations/sweep.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/run_metrics.h"

namespace mechinterp::engine {
namespace {

// The sites whose clean values a run starts from; see Segment.
struct EntrySites {
  HookSite residual;
  std::optional<HookSite> branch;
};

EntrySites SitesAt(const EntryPoint& entry, int layer_count) {
  if (entry.layer == layer_count) return {{HookPoint::kResidPost, layer_count - 1}, std::nullopt};
  const HookSite site{entry.point, entry.layer};
  switch (entry.point) {
    case HookPoint::kMlpPost:
      return {{HookPoint::kResidMid, entry.layer}, site};
    case HookPoint::kZ:
      return {{HookPoint::kResidPre, entry.layer}, site};
    default:
      return {{HookPoint::kResidPre, entry.layer}, std::nullopt};
  }
}

class Sweep {
 public:
  Sweep(RunContext& context, const SweepRequest& request, const SweepSink& sink)
      : context_(context), config_(context.executor.model().config()), request_(request), sink_(sink) {
    for (const auto& plan : request.plans) entries_.push_back(EarliestChange(*plan, config_.layer_count()));
  }

  absl::StatusOr<SweepTotals> Run() {
    ABSTRACT_RETURN_IF_ERROR(RunBaselines());
    // Neighbours in a batch then enter at the same place, or nearly so, and of those at the
    // same position.
    std::vector<int> order(entries_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return OrderOf(a) < OrderOf(b); });
    for (size_t begin = 0; begin < order.size();) {
      size_t end = begin;
      int rows = 0;
      do {
        rows += RowCount(order[end++]);
      } while (end < order.size() && rows + RowCount(order[end]) <= context_.executor.preferred_batch_rows());
      ABSTRACT_RETURN_IF_ERROR(RunBatch(absl::MakeConstSpan(order).subspan(begin, end - begin)));
      begin = end;
    }
    return totals_;
  }

 private:
  int length() const { return request_.prompt.length(); }
  // A plan that changes nothing is still asked for its logits: one row.
  int FirstPosition(int index) const { return std::min(entries_[index].position, length() - 1); }
  int RowCount(int index) const { return length() - FirstPosition(index); }
  std::tuple<int, HookPoint, int> OrderOf(int index) const {
    return {entries_[index].layer, entries_[index].point, FirstPosition(index)};
  }

  // Of the clean run, which has it record them.
  void Record(const HookSite& site, int first_position, HookPlan& plan) const {
    std::vector<int>& positions =
        plan.captures.try_emplace(site, CompiledCapture{site, {}}).first->second.positions;
    const int kept_from = positions.empty() ? length() : positions.front();
    const int needed_from = std::min(kept_from, first_position);
    positions.resize(length() - needed_from);
    std::iota(positions.begin(), positions.end(), needed_from);
  }
  HostTensor Recorded(const HookSite& site, int first_position) const {
    const RecordedActivation& clean = clean_.activations.at(site);
    const int64_t rows = length() - first_position, width = ShapeOf(site.point, config_).size();
    return {{rows, width}, {clean.values.values.end() - rows * width, clean.values.values.end()}};
  }

  absl::Status RunBaselines() {
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = length();
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].IsBeginning()) continue;
      const EntrySites sites = SitesAt(entries_[i], config_.layer_count());
      const int first = FirstPosition(static_cast<int>(i));
      Record(sites.residual, first, *plan);
      if (sites.branch) Record(*sites.branch, first, *plan);
    }
    clean_cache_ = std::make_shared<KvCache>(config_);
    clean_.tokens = request_.prompt.ids;
    clean_.plan = std::move(plan);
    clean_.cache = clean_cache_;
    clean_.logits_rows = LogitsRows::kLast;
    std::vector<Segment*> segments = {&clean_};
    Segment source;
    auto source_cache = std::make_shared<KvCache>(config_);
    if (request_.source_prompt) {
      source.tokens = request_.source_prompt->ids;
      source.cache = source_cache;
      source.logits_rows = LogitsRows::kLast;
      segments.push_back(&source);
    }
    ABSTRACT_RETURN_IF_ERROR(context_.Run(segments));
    totals_.computed_token_layers += int64_t{length()} * config_.layer_count();

    clean_distribution_.emplace(clean_.logits.values);
    ABSTRACT_ASSIGN_OR_RETURN(baselines_.clean,
                              Measure(clean_.logits, request_.prompt, nullptr, clean_cache_));
    if (request_.source_prompt) {
      totals_.computed_token_layers += int64_t{request_.source_prompt->length()} * config_.layer_count();
      ABSTRACT_ASSIGN_OR_RETURN(baselines_.source,
                                Measure(source.logits, *request_.source_prompt, nullptr, source_cache));
    }
    return sink_.on_baselines(baselines_);
  }

  absl::StatusOr<RunMetrics> Measure(const HostTensor& logits, const TokenizedPrompt& prompt,
                                     std::shared_ptr<const HookPlan> plan,
                                     std::shared_ptr<const KvCache> cache) {
    return MeasureRun(context_, {prompt, std::move(plan), std::move(cache), logits.values},
                      &*clean_distribution_, request_.metrics);
  }

  Segment PatchedSegment(int index) {
    const EntryPoint& entry = entries_[index];
    const int first = FirstPosition(index);
    Segment segment;
    if (entry.IsBeginning()) {
      segment.tokens.assign(request_.prompt.ids.begin() + first, request_.prompt.ids.end());
    } else {
      const EntrySites sites = SitesAt(entry, config_.layer_count());
      segment.residual = Recorded(sites.residual, first);
      if (sites.branch) segment.branch = Recorded(*sites.branch, first);
    }
    segment.entry_layer = entry.layer;
    segment.entry_point = entry.point;
    segment.first_position = first;
    segment.shared = clean_cache_;
    segment.shared_length = first;
    segment.plan = request_.plans[index];
    segment.logits_rows = LogitsRows::kLast;
    if (request_.metrics.has_openings()) segment.cache = std::make_shared<KvCache>(config_);
    return segment;
  }

  absl::Status RunBatch(absl::Span<const int> indices) {
    std::vector<Segment> segments;
    std::vector<Segment*> pointers;
    for (int index : indices) segments.push_back(PatchedSegment(index));
    for (Segment& segment : segments) pointers.push_back(&segment);
    ABSTRACT_RETURN_IF_ERROR(context_.Run(pointers));
    for (size_t i = 0; i < indices.size(); ++i) {
      const int index = indices[i];
      totals_.computed_token_layers +=
          int64_t{RowCount(index)} * (config_.layer_count() - entries_[index].layer);
      totals_.naive_token_layers += int64_t{length()} * config_.layer_count();
      SweepResult result;
      result.set_index = index;
      ABSTRACT_ASSIGN_OR_RETURN(result.metrics, Measure(segments[i].logits, request_.prompt,
                                                        request_.plans[index], WholeCache(segments[i])));
      if (baselines_.source) result.effect = Effect(result.metrics, baselines_.clean, *baselines_.source);
      ABSTRACT_RETURN_IF_ERROR(sink_.on_result(result));
    }
    return absl::OkStatus();
  }

  // Keys and values of the whole patched run: the clean ones where it did not
  // compute its own.
  std::shared_ptr<const KvCache> WholeCache(const Segment& segment) {
    if (segment.cache == nullptr) return nullptr;
    const int first_own_layer = segment.entry_layer + (segment.entry_point == HookPoint::kResidPre ? 0 : 1);
    return std::make_shared<KvCache>(config_, KvCache::Parts{clean_cache_, length(), segment.cache,
                                                             segment.shared_length, first_own_layer});
  }

  RunContext& context_;
  const ModelConfig& config_;
  const SweepRequest& request_;
  const SweepSink& sink_;
  std::vector<EntryPoint> entries_;
  Segment clean_;
  std::shared_ptr<KvCache> clean_cache_;
  std::optional<ReferenceDistribution> clean_distribution_;
  SweepBaselines baselines_;
  SweepTotals totals_;
};

}  // namespace

absl::StatusOr<SweepTotals> RunPatchSweep(RunContext& context, const SweepRequest& request,
                                          const SweepSink& sink) {
  return Sweep(context, request, sink).Run();
}

}  // namespace mechinterp::engine
