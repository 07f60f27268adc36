#include "services/engine/operations/sweep.h"

#include <algorithm>
#include <map>
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

// How the runs of a sweep are packed: what decides it, without anything that is computed. The
// sweep and its memory estimate go by the same.
class Packing {
 public:
  Packing(const ModelConfig& config, int prompt_length, std::vector<EntryPoint> entries)
      : config_(config), length_(prompt_length), entries_(std::move(entries)) {}

  const EntryPoint& entry(int index) const { return entries_[index]; }
  int count() const { return static_cast<int>(entries_.size()); }
  // A plan that changes nothing is still asked for its logits: one row.
  int FirstPosition(int index) const { return std::min(entries_[index].position, length_ - 1); }
  int RowCount(int index) const { return length_ - FirstPosition(index); }
  // The first layer whose keys and values are the run's own.
  int FirstOwnLayer(int index) const {
    return entries_[index].layer + (entries_[index].point == HookPoint::kResidPre ? 0 : 1);
  }

  // The runs in batches of up to `batch_rows` rows (or of one run). Neighbours enter at the
  // same place, or nearly so, and of those at the same position.
  std::vector<std::vector<int>> Batches(int64_t batch_rows) const {
    std::vector<int> order(entries_.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return OrderOf(a) < OrderOf(b); });
    std::vector<std::vector<int>> batches;
    int64_t rows = 0;
    for (int index : order) {
      if (batches.empty() || rows + RowCount(index) > batch_rows) {
        batches.emplace_back();
        rows = 0;
      }
      batches.back().push_back(index);
      rows += RowCount(index);
    }
    return batches;
  }

  // Of each site that the clean run has to record, the first position.
  std::map<HookSite, int> Recorded() const {
    std::map<HookSite, int> first;
    auto record = [&](const HookSite& site, int position) {
      int& kept = first.try_emplace(site, length_).first->second;
      kept = std::min(kept, position);
    };
    for (int index = 0; index < count(); ++index) {
      if (entries_[index].IsBeginning()) continue;
      const EntrySites sites = SitesAt(entries_[index], config_.layer_count());
      record(sites.residual, FirstPosition(index));
      if (sites.branch) record(*sites.branch, FirstPosition(index));
    }
    return first;
  }

 private:
  std::tuple<int, HookPoint, int> OrderOf(int index) const {
    return {entries_[index].layer, entries_[index].point, FirstPosition(index)};
  }

  const ModelConfig& config_;
  const int length_;
  const std::vector<EntryPoint> entries_;
};

std::vector<EntryPoint> EntriesOf(const SweepRequest& request, int layer_count) {
  std::vector<EntryPoint> entries;
  for (const auto& plan : request.plans) entries.push_back(EarliestChange(*plan, layer_count));
  return entries;
}

class Sweep {
 public:
  Sweep(RunContext& context, const SweepRequest& request, const SweepSink& sink)
      : context_(context),
        config_(context.executor.model().config()),
        request_(request),
        sink_(sink),
        packing_(config_, request.prompt.length(), EntriesOf(request, config_.layer_count())) {}

  absl::StatusOr<SweepTotals> Run() {
    ABSTRACT_RETURN_IF_ERROR(RunBaselines());
    for (const std::vector<int>& batch : packing_.Batches(context_.executor.preferred_batch_rows())) {
      ABSTRACT_RETURN_IF_ERROR(RunBatch(batch));
    }
    return totals_;
  }

 private:
  int length() const { return request_.prompt.length(); }
  // Of the clean run, which has recorded them.
  HostTensor Recorded(const HookSite& site, int first_position) const {
    const RecordedActivation& clean = clean_.activations.at(site);
    const int64_t rows = length() - first_position, width = ShapeOf(site.point, config_).size();
    return {{rows, width}, {clean.values.values.end() - rows * width, clean.values.values.end()}};
  }

  absl::Status RunBaselines() {
    auto plan = std::make_shared<HookPlan>();
    if (request_.base != nullptr) plan->edits = request_.base->edits;
    plan->prompt_length = length();
    for (const auto& [site, first] : packing_.Recorded()) {
      std::vector<int> positions(length() - first);
      std::iota(positions.begin(), positions.end(), first);
      plan->captures[site] = {site, std::move(positions)};
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
                              Measure(clean_.logits, request_.prompt, request_.base, clean_cache_));
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

  // The base's edits, then the run's own. What a run starts from within the model has the base's edits
  // of the prompt at that place already.
  std::shared_ptr<const HookPlan> PlanOf(int index, const EntryPoint& entry) const {
    if (request_.base == nullptr) return request_.plans[index];
    auto plan = std::make_shared<HookPlan>(*request_.base);
    if (const auto there = plan->edits.find({entry.point, entry.layer});
        !entry.IsBeginning() && there != plan->edits.end()) {
      for (CompiledEdit& edit : there->second) edit.positions.clear();
    }
    for (const auto& [site, edits] : request_.plans[index]->edits) {
      std::vector<CompiledEdit>& all = plan->edits[site];
      all.insert(all.end(), edits.begin(), edits.end());
    }
    return plan;
  }

  Segment PatchedSegment(int index) {
    const EntryPoint& entry = packing_.entry(index);
    const int first = packing_.FirstPosition(index);
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
    segment.plan = PlanOf(index, entry);
    segment.logits_rows = LogitsRows::kLast;
    if (request_.metrics.has_openings()) segment.cache = std::make_shared<KvCache>(config_);
    return segment;
  }

  absl::Status RunBatch(absl::Span<const int> indices) {
    std::vector<Segment> segments;
    segments.reserve(indices.size());
    std::vector<Segment*> pointers;
    for (int index : indices) segments.push_back(PatchedSegment(index));
    for (Segment& segment : segments) pointers.push_back(&segment);
    ABSTRACT_RETURN_IF_ERROR(context_.Run(pointers));
    for (size_t i = 0; i < indices.size(); ++i) {
      const int index = indices[i];
      totals_.computed_token_layers +=
          int64_t{packing_.RowCount(index)} * (config_.layer_count() - packing_.entry(index).layer);
      totals_.naive_token_layers += int64_t{length()} * config_.layer_count();
      SweepResult result;
      result.set_index = index;
      ABSTRACT_ASSIGN_OR_RETURN(result.metrics, Measure(segments[i].logits, request_.prompt, segments[i].plan,
                                                        WholeCache(index, segments[i])));
      if (baselines_.source) result.effect = Effect(result.metrics, baselines_.clean, *baselines_.source);
      ABSTRACT_RETURN_IF_ERROR(sink_.on_result(result));
    }
    return absl::OkStatus();
  }

  // Keys and values of the whole patched run: the clean ones where it did not
  // compute its own.
  std::shared_ptr<const KvCache> WholeCache(int index, const Segment& segment) {
    if (segment.cache == nullptr) return nullptr;
    return std::make_shared<KvCache>(
        config_, KvCache::Parts{clean_cache_, length(), segment.cache, segment.shared_length,
                                packing_.FirstOwnLayer(index)});
  }

  RunContext& context_;
  const ModelConfig& config_;
  const SweepRequest& request_;
  const SweepSink& sink_;
  const Packing packing_;
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

int64_t SweepBatchRuns(const ModelConfig& config, int64_t prompt_length,
                       const std::vector<EntryPoint>& entries, int64_t batch_rows) {
  const Packing packing(config, static_cast<int>(prompt_length), entries);
  size_t runs = 0;
  for (const std::vector<int>& batch : packing.Batches(batch_rows)) runs = std::max(runs, batch.size());
  return static_cast<int64_t>(runs);
}

int64_t SweepBytes(const ModelConfig& config, int64_t prompt_length, int64_t source_length,
                   const std::vector<EntryPoint>& entries, const MetricOptions& metrics, int64_t batch_rows) {
  constexpr int64_t kFloatBytes = sizeof(float);
  constexpr int64_t kSegmentBytes = 1024;  // of a run, beside its values
  const Packing packing(config, static_cast<int>(prompt_length), entries);
  const int64_t logits = config.vocabulary_size * kFloatBytes;
  const bool has_openings = metrics.has_openings();

  int64_t clean = KeyValueBytes(config, prompt_length) + logits + ReferenceBytes(config.vocabulary_size);
  for (const auto& [site, first] : packing.Recorded()) {
    clean += (prompt_length - first) * ShapeOf(site.point, config).size() * kFloatBytes;
  }
  const int64_t source = source_length > 0 ? KeyValueBytes(config, source_length) + logits : 0;

  int64_t largest_batch = 0;
  for (const std::vector<int>& batch : packing.Batches(batch_rows)) {
    int64_t bytes = 0;
    for (int index : batch) {
      const int64_t rows = packing.RowCount(index);
      bytes += logits + kSegmentBytes;
      if (!packing.entry(index).IsBeginning()) {
        const EntrySites sites = SitesAt(packing.entry(index), config.layer_count());
        int64_t width = ShapeOf(sites.residual.point, config).size();
        if (sites.branch) width += ShapeOf(sites.branch->point, config).size();
        bytes += rows * width * kFloatBytes;
      }
      if (!has_openings) continue;
      const int own_layers = config.layer_count() - packing.FirstOwnLayer(index);
      bytes += own_layers * KeyValueBytes(config, rows) / config.layer_count();
    }
    largest_batch = std::max(largest_batch, bytes);
  }
  // One run's keys and values at a time are put together, for its openings.
  const int64_t openings =
      has_openings ? KeyValueBytes(config, prompt_length) + OpeningBytes(config, metrics) : 0;
  // The source's are let go of before the first batch.
  return clean +
         std::max(source + (has_openings ? OpeningBytes(config, metrics) : 0), largest_batch + openings);
}

}  // namespace mechinterp::engine
