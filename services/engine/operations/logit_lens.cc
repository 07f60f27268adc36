#include "services/engine/operations/logit_lens.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/operations/largest.h"
#include "services/engine/weights/pass_scratch.h"

namespace mechinterp::engine {
namespace {

int64_t RankOf(absl::Span<const float> logits, TokenId id) {
  int64_t rank = 0;
  for (TokenId other = 0; other < static_cast<TokenId>(logits.size()); ++other) {
    rank += logits[other] > logits[id] || (logits[other] == logits[id] && other < id);
  }
  return rank;
}

TokenId LikeliestOf(absl::Span<const float> logits) {
  std::vector<TokenId> ids;
  FindLargest(logits, 1, ids);
  return ids.front();
}

// One lens on its way. Its rows are, position by position, the streams at all sites, the last
// site's first: what the others are compared with.
class Lens {
 public:
  Lens(RunContext& context, const LensRequest& request,
       const std::function<absl::Status(const LensReading&)>& sink)
      : context_(context),
        config_(context.executor.model().config()),
        request_(request),
        sink_(sink),
        sites_(LensSites(config_, request.resid_mid)) {
    std::rotate(sites_.begin(), sites_.end() - 1, sites_.end());
  }

  absl::Status Run() {
    ABSTRACT_RETURN_IF_ERROR(Record());
    const int64_t rows = static_cast<int64_t>(request_.positions.size() * sites_.size());
    for (int64_t first = 0; first < rows; first += kHeadRowsPerBlock) {
      ABSTRACT_RETURN_IF_ERROR(ReadBlock(first, std::min(kHeadRowsPerBlock, rows - first)));
    }
    return absl::OkStatus();
  }

 private:
  // The prompt's run, as far as the last position that is read.
  absl::Status Record() {
    const int length = request_.positions.back() + 1;
    run_.tokens.assign(request_.prompt.ids.begin(), request_.prompt.ids.begin() + length);
    run_.prompt_length = request_.prompt.length();
    run_.plan = WithCaptures(request_.plan.get(), request_.prompt.length(),
                             std::set<HookSite>(sites_.begin(), sites_.end()), request_.positions);
    Segment* const only[] = {&run_};
    return context_.Run(only);
  }

  // Takes rows [first, first + count) through the head, each a segment that enters after the last
  // block, at its own position: edits of the head are in force there.
  absl::Status ReadBlock(int64_t first, int64_t count) {
    block_.resize(count);
    std::vector<Segment*> pointers;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t position = (first + i) / SiteCount();
      const std::vector<float>& stream = run_.activations.at(SiteOf(first + i)).values.values;
      const auto row = stream.begin() + position * config_.d_model;
      Segment& segment = block_[i];
      segment.residual = {{1, config_.d_model}, std::vector<float>(row, row + config_.d_model)};
      segment.entry_layer = config_.layer_count();
      segment.first_position = request_.positions[position];
      segment.prompt_length = request_.prompt.length();
      segment.plan = request_.plan;
      segment.logits_rows = LogitsRows::kAll;
      pointers.push_back(&segment);
    }
    ABSTRACT_RETURN_IF_ERROR(context_.Run(pointers));
    for (int64_t i = 0; i < count; ++i) {
      ABSTRACT_RETURN_IF_ERROR(Pass(first + i, Read(first + i, block_[i].logits.values)));
    }
    return absl::OkStatus();
  }

  LensReading Read(int64_t row, absl::Span<const float> logits) {
    if (IsLastSite(row)) {
      final_.emplace(logits);
      target_ = request_.target.has_value() ? *request_.target : LikeliestOf(logits);
    }
    LensReading reading;
    reading.site = SiteOf(row);
    reading.position = request_.positions[row / SiteCount()];
    reading.metrics = MeasureLogits(logits, *final_, request_.metrics);
    reading.target_log_probability = LogProbability(logits, target_);
    reading.target = {target_, std::exp(reading.target_log_probability), logits[target_]};
    reading.target_rank = RankOf(logits, target_);
    return reading;
  }

  // Passes readings on in the order of the pass.
  absl::Status Pass(int64_t row, LensReading reading) {
    if (IsLastSite(row)) {
      held_ = std::move(reading);
      return absl::OkStatus();
    }
    ABSTRACT_RETURN_IF_ERROR(sink_(reading));
    return IsLastSite(row + 1) ? sink_(held_) : absl::OkStatus();
  }

  int64_t SiteCount() const { return static_cast<int64_t>(sites_.size()); }
  const HookSite& SiteOf(int64_t row) const { return sites_[row % SiteCount()]; }
  bool IsLastSite(int64_t row) const { return row % SiteCount() == 0; }

  RunContext& context_;
  const ModelConfig& config_;
  const LensRequest& request_;
  const std::function<absl::Status(const LensReading&)>& sink_;
  std::vector<HookSite> sites_;  // the last one first
  Segment run_;
  std::vector<Segment> block_;
  std::optional<ReferenceDistribution> final_;  // of the position that is being read
  TokenId target_ = 0;
  LensReading held_;  // of its last site
};

}  // namespace

std::vector<HookSite> LensSites(const ModelConfig& config, bool resid_mid) {
  std::vector<HookSite> sites;
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    sites.push_back({HookPoint::kResidPre, layer});
    if (resid_mid) sites.push_back({HookPoint::kResidMid, layer});
  }
  sites.push_back({HookPoint::kResidPost, config.layer_count() - 1});
  return sites;
}

absl::Status RunLogitLens(RunContext& context, const LensRequest& request,
                          const std::function<absl::Status(const LensReading&)>& sink) {
  return Lens(context, request, sink).Run();
}

int64_t LensBytes(const ModelConfig& config, const LensRequest& request) {
  const auto sites = static_cast<int64_t>(LensSites(config, request.resid_mid).size());
  const auto positions = static_cast<int64_t>(request.positions.size());
  const int64_t block = std::min(kHeadRowsPerBlock, sites * positions);
  const int64_t floats =
      sites * positions * config.d_model + block * (int64_t{config.d_model} + config.vocabulary_size);
  // Of what is captured and of a block's segments, beside their values; of the largest, twice.
  const int64_t objects =
      sites * (512 + 2 * positions * static_cast<int64_t>(sizeof(int))) +
      block * static_cast<int64_t>(sizeof(Segment)) +
      2 * request.metrics.top_token_count * static_cast<int64_t>(sizeof(TokenProbability));
  return floats * static_cast<int64_t>(sizeof(float)) + objects + ReferenceBytes(config.vocabulary_size);
}

}  // namespace mechinterp::engine
