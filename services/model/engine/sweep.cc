#include "services/model/engine/sweep.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "services/common/status_macros.h"
#include "services/model/engine/kv_cache.h"
#include "services/model/engine/patch_run.h"

namespace mechinterp::engine {
namespace {

// The site whose clean value is the residual stream entering `layer`.
HookSite EntrySite(int layer, int layer_count) {
  return layer == layer_count ? HookSite{HookPoint::kResidPost, layer_count - 1}
                              : HookSite{HookPoint::kResidPre, layer};
}

class Sweep {
 public:
  Sweep(RunContext& context, const SweepRequest& request, const SweepSink& sink)
      : context_(context), config_(context.executor.model().config()), request_(request), sink_(sink) {
    for (const auto& plan : request.plans) entries_.push_back(EarliestChange(*plan, config_.layer_count));
  }

  absl::StatusOr<SweepTotals> Run() {
    ABSTRACT_RETURN_IF_ERROR(RunBaselines());
    // Neighbours in a batch then enter at the same layer, or nearly so, and of those at the
    // same position.
    std::vector<int> order(entries_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return std::pair(entries_[a].layer, FirstPosition(a)) < std::pair(entries_[b].layer, FirstPosition(b));
    });
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

  absl::Status RunBaselines() {
    auto plan = std::make_shared<HookPlan>();
    plan->prompt_length = length();
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].layer == 0) continue;
      const HookSite site = EntrySite(entries_[i].layer, config_.layer_count);
      std::vector<int>& positions =
          plan->captures.try_emplace(site, CompiledCapture{site, {}}).first->second.positions;
      const int kept_from = positions.empty() ? length() : positions.front();
      const int needed_from = std::min(kept_from, FirstPosition(static_cast<int>(i)));
      positions.resize(length() - needed_from);
      std::iota(positions.begin(), positions.end(), needed_from);
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
    totals_.computed_token_layers += int64_t{length()} * config_.layer_count;

    clean_distribution_.emplace(clean_.logits.values);
    ABSTRACT_ASSIGN_OR_RETURN(baselines_.clean,
                              Measure(clean_.logits, request_.prompt, nullptr, clean_cache_));
    if (request_.source_prompt) {
      totals_.computed_token_layers += int64_t{request_.source_prompt->length()} * config_.layer_count;
      ABSTRACT_ASSIGN_OR_RETURN(baselines_.source,
                                Measure(source.logits, *request_.source_prompt, nullptr, source_cache));
    }
    return sink_.on_baselines(baselines_);
  }

  absl::StatusOr<RunMetrics> Measure(const HostTensor& logits, const TokenizedPrompt& prompt,
                                     std::shared_ptr<const HookPlan> plan,
                                     std::shared_ptr<const KvCache> cache) {
    RunMetrics metrics = MeasureLogits(logits.values, *clean_distribution_, request_.metrics);
    if (request_.metrics.has_openings()) {
      ABSTRACT_RETURN_IF_ERROR(ScoreOpenings(context_, prompt, std::move(plan), std::move(cache),
                                             logits.values, request_.metrics, metrics));
    }
    return metrics;
  }

  Segment PatchedSegment(int index) {
    const int entry_layer = entries_[index].layer, first = FirstPosition(index);
    Segment segment;
    if (entry_layer == 0) {
      segment.tokens.assign(request_.prompt.ids.begin() + first, request_.prompt.ids.end());
    } else {
      const RecordedActivation& clean = clean_.activations.at(EntrySite(entry_layer, config_.layer_count));
      const int64_t skipped = (first - clean.positions.front()) * int64_t{config_.d_model};
      segment.residual = {{RowCount(index), config_.d_model},
                          {clean.values.values.begin() + skipped, clean.values.values.end()}};
    }
    segment.entry_layer = entry_layer;
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
          int64_t{RowCount(index)} * (config_.layer_count - entries_[index].layer);
      totals_.naive_token_layers += int64_t{length()} * config_.layer_count;
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
    return std::make_shared<KvCache>(config_, KvCache::Parts{clean_cache_, length(), segment.cache,
                                                             segment.shared_length, segment.entry_layer});
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
