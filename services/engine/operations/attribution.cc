#include "services/engine/operations/attribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/forward/tape.h"
#include "services/engine/operations/run_metrics.h"
#include "services/engine/operations/softmax_attribution.h"
#include "services/engine/weights/pass_scratch.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

std::vector<int> Upto(int count) {
  std::vector<int> positions(count);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

// Whether a site's scores come from the pattern that the softmax makes anew.
bool HasExactSoftmax(const AttributionRequest& request, const HookSite& site) {
  return request.exact_softmax && (site.point == HookPoint::kQ || site.point == HookPoint::kK);
}

// How many layers its sites are in.
int64_t LayersOf(const AttributionRequest& request) {
  std::set<int> layers;
  for (const HookSite& site : request.sites) layers.insert(site.layer);
  return static_cast<int64_t>(layers.size());
}

// How many of the steps between the prompts are taken together.
int StepsAtOnce(const AttributionRequest& request, int batch_rows) {
  return std::clamp(batch_rows / std::max(1, request.clean.length()), 1, request.steps);
}

// One attribution on its way.
class Attributor {
 public:
  Attributor(RunContext& context, const AttributionRequest& request)
      : context_(context), config_(context.executor.model().config()), request_(request) {}

  absl::StatusOr<Attribution> Run() {
    FindSites();
    ABSTRACT_RETURN_IF_ERROR(RunForward());
    Attribution result;
    result.clean_metric = clean_metric_;
    result.source_metric = source_metric_;
    switch (request_.method) {
      case AttributionMethod::kGradient:
      case AttributionMethod::kRelevance:
        result.gradients = std::move(gradients_[0]);
        result.scores = Scores(result.gradients);
        break;
      case AttributionMethod::kGradDrop:
        result.scores = GradDropScores();
        break;
      case AttributionMethod::kIntegratedGradients: {
        ABSTRACT_ASSIGN_OR_RETURN(result.gradients, MeanGradients());
        result.scores = Scores(result.gradients);
        break;
      }
    }
    if (request_.edges) {
      result.edges = EdgeScores(config_, clean_.activations, source_.activations, result.gradients);
    }
    if (!request_.with_gradients) result.gradients.clear();
    return result;
  }

 private:
  bool integrates() const { return request_.method == AttributionMethod::kIntegratedGradients; }

  // What is to be captured, and where gradients are wanted.
  void FindSites() {
    for (const HookSite& site : request_.sites) {
      if (!HasExactSoftmax(request_, site)) {
        captured_.insert(site);
        wanted_.insert(site);
        continue;
      }
      captured_.insert({HookPoint::kRotQ, site.layer});
      captured_.insert({HookPoint::kRotK, site.layer});
      wanted_.insert({HookPoint::kPattern, site.layer});
    }
    if (integrates()) captured_.insert({HookPoint::kEmbed, 0});
    if (!request_.edges) return;
    for (const HookSite& site : SenderSites(config_)) captured_.insert(site);
    for (const HookSite& site : ReceiverSites(config_)) wanted_.insert(site);
  }

  // The two prompts, and the way back from the clean one where it starts there.
  absl::Status RunForward() {
    clean_.tokens = request_.clean.ids;
    source_.tokens = request_.source.ids;
    clean_.plan = WithCaptures(request_.plan.get(), clean_.length(), captured_, Upto(clean_.length()));
    source_.plan = WithCaptures(nullptr, source_.length(), captured_, Upto(source_.length()));
    clean_.logits_rows = source_.logits_rows = LogitsRows::kLast;
    std::shared_ptr<const ReferenceDistribution> reference;
    if (request_.metric == MetricKind::kKlFromClean) {  // from the run without edits
      Segment unedited;
      unedited.tokens = request_.clean.ids;
      unedited.logits_rows = LogitsRows::kLast;
      Segment* const first[] = {&unedited};
      ABSTRACT_RETURN_IF_ERROR(context_.Run(first));
      reference = std::make_shared<ReferenceDistribution>(unedited.logits.values);
    }
    metric_ = MakeMetric(request_.metric, request_.tokens, reference);
    Segment* const both[] = {&clean_, &source_};
    if (request_.metric == MetricKind::kOpenings) {
      clean_.cache = std::make_shared<KvCache>(config_);
      source_.cache = std::make_shared<KvCache>(config_);
      ABSTRACT_RETURN_IF_ERROR(context_.Run(both));
      return TakeOpeningsBack();
    }
    if (!integrates()) clean_.gradient = PlanBack(Runs());
    ABSTRACT_RETURN_IF_ERROR(context_.Run(both));
    clean_metric_ = metric_.value(clean_.logits.values);
    source_metric_ = metric_.value(source_.logits.values);
    gradients_ = std::move(clean_.gradients);
    return absl::OkStatus();
  }

  // The way back from each opening, appended to the prompt, one after the other.
  absl::Status TakeOpeningsBack() {
    const MetricOptions& tokens = request_.tokens;
    ABSTRACT_ASSIGN_OR_RETURN(
        const RunMetrics clean,
        MeasureRun(context_, {request_.clean, request_.plan, clean_.cache, clean_.logits.values}, nullptr,
                   tokens));
    ABSTRACT_ASSIGN_OR_RETURN(
        const RunMetrics source,
        MeasureRun(context_, {request_.source, nullptr, source_.cache, source_.logits.values}, nullptr,
                   tokens));
    clean_metric_ = OpeningsMetric(clean);
    source_metric_ = OpeningsMetric(source);
    gradients_.resize(Runs().size());
    for (const std::vector<TokenId>& opening : tokens.refusal_openings) {
      ABSTRACT_RETURN_IF_ERROR(TakeOpeningBack(opening, 1, *clean.refusal_opening_log_probability));
    }
    for (const std::vector<TokenId>& opening : tokens.compliance_openings) {
      ABSTRACT_RETURN_IF_ERROR(TakeOpeningBack(opening, -1, *clean.compliance_opening_log_probability));
    }
    return absl::OkStatus();
  }

  absl::Status TakeOpeningBack(const std::vector<TokenId>& opening, double sign, double log_total) {
    Segment segment;
    segment.tokens = request_.clean.ids;
    segment.tokens.insert(segment.tokens.end(), opening.begin(), opening.end() - 1);
    segment.prompt_length = request_.clean.length();
    segment.plan = WithCaptures(request_.plan.get(), request_.clean.length(), {}, {});
    auto back = std::make_shared<GradientPlan>(*PlanBack(Runs()));
    back->metric_rows = static_cast<int>(opening.size());
    back->metric = [&](absl::Span<const float> logits, absl::Span<float> gradient) {
      OpeningGradient(opening, sign, log_total, logits, gradient);
    };
    segment.gradient = std::move(back);
    Segment* const one[] = {&segment};
    ABSTRACT_RETURN_IF_ERROR(context_.Run(one));
    for (size_t run = 0; run < gradients_.size(); ++run)
      AddTo(gradients_[run], std::move(segment.gradients[run]));
    return absl::OkStatus();
  }

  std::vector<BackwardRun> Runs() const {
    if (request_.method == AttributionMethod::kRelevance) return {{BackwardRule::kRelevance, -1}};
    if (request_.method != AttributionMethod::kGradDrop) return {{}};
    std::vector<BackwardRun> runs;
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      runs.push_back({BackwardRule::kGradient, layer});
    }
    return runs;
  }

  std::shared_ptr<const GradientPlan> PlanBack(std::vector<BackwardRun> runs) const {
    auto plan = std::make_shared<GradientPlan>();
    plan->metric = metric_.gradient;
    plan->runs = std::move(runs);
    plan->keeps_all_layers = request_.keeps_all_layers;
    for (const HookSite& site : wanted_) plan->captures[site] = {site, Upto(clean_.length())};
    return plan;
  }

  // Over the way from the clean prompt's embeddings to the source's, as many steps at a time as
  // make a batch.
  absl::StatusOr<Activations> MeanGradients() {
    const auto back = PlanBack({{}});
    const auto plan = WithCaptures(request_.plan.get(), clean_.length(), {}, {});
    Activations mean;
    for (int done = 0; done < request_.steps;) {
      std::vector<Segment> steps(
          std::min(StepsAtOnce(request_, context_.executor.preferred_batch_rows()), request_.steps - done));
      std::vector<Segment*> pointers;
      for (Segment& segment : steps) {
        segment.residual = EmbeddingsAt(++done);
        segment.plan = plan;
        segment.gradient = back;
        pointers.push_back(&segment);
      }
      ABSTRACT_RETURN_IF_ERROR(context_.Run(pointers));
      for (Segment& segment : steps) AddTo(mean, std::move(segment.gradients[0]));
    }
    for (auto& [site, gradient] : mean) {
      for (float& value : gradient.values.values) value /= static_cast<float>(request_.steps);
    }
    return mean;
  }

  // clean + (step / steps)(source - clean), [T, D].
  HostTensor EmbeddingsAt(int step) const {
    const HookSite embed{HookPoint::kEmbed, 0};
    const std::vector<float>& from = clean_.activations.at(embed).values.values;
    const std::vector<float>& to = source_.activations.at(embed).values.values;
    const float share = static_cast<float>(step) / static_cast<float>(request_.steps);
    HostTensor between{{clean_.length(), config_.d_model}, from};
    for (size_t i = 0; i < from.size(); ++i) between.values[i] += share * (to[i] - from[i]);
    return between;
  }

  static void AddTo(Activations& sum, Activations part) {
    if (sum.empty()) {
      sum = std::move(part);
      return;
    }
    for (auto& [site, gradient] : sum) {
      const std::vector<float>& more = part.at(site).values.values;
      for (size_t i = 0; i < more.size(); ++i) gradient.values.values[i] += more[i];
    }
  }

  std::map<HookSite, HostTensor> GradDropScores() const {
    std::map<HookSite, HostTensor> sums;
    for (const Activations& gradients : gradients_) {
      for (auto& [site, scores] : Scores(gradients)) {
        HostTensor& sum = sums[site];
        sum.shape = scores.shape;
        sum.values.resize(scores.values.size());
        for (size_t i = 0; i < scores.values.size(); ++i) sum.values[i] += std::abs(scores.values[i]);
      }
    }
    const auto others = static_cast<float>(std::max(1, config_.layer_count() - 1));
    for (auto& [site, sum] : sums) {
      for (float& value : sum.values) value /= others;
    }
    return sums;
  }

  std::map<HookSite, HostTensor> Scores(const Activations& gradients) const {
    std::map<HookSite, HostTensor> scores;
    for (const HookSite& site : request_.sites) {
      scores[site] = HasExactSoftmax(request_, site) ? SoftmaxScores(site, gradients)
                                                     : Products(site, gradients.at(site));
    }
    return scores;
  }

  // (source - clean) . gradient, by position and unit.
  HostTensor Products(const HookSite& site, const RecordedActivation& gradient) const {
    const HostTensor& clean = clean_.activations.at(site).values;
    const HostTensor& source = source_.activations.at(site).values;
    const int64_t length = clean_.length(), offset = source_.length() - length,
                  units = UnitsOf(site.point, config_);
    const int64_t width = clean.shape[1] * clean.shape[2] / units;
    HostTensor scores{{length, units}, std::vector<float>(length * units)};
    for (int64_t t = std::max<int64_t>(0, -offset); t < length; ++t) {
      for (int64_t unit = 0; unit < units; ++unit) {
        const int64_t at = (t * units + unit) * width, there = at + offset * units * width;
        double sum = 0;
        for (int64_t i = 0; i < width; ++i) {
          sum += (double{source.values[there + i]} - clean.values[at + i]) * gradient.values.values[at + i];
        }
        scores.values[t * units + unit] = static_cast<float>(sum);
      }
    }
    return scores;
  }

  HostTensor SoftmaxScores(const HookSite& site, const Activations& gradients) const {
    const HookSite query{HookPoint::kRotQ, site.layer}, key{HookPoint::kRotK, site.layer};
    const RotaryFrequencies& rotary = context_.executor.model().weights().rotary_frequencies;
    const SoftmaxAttribution attention(
        config_, site.layer, {clean_.activations.at(query).values, clean_.activations.at(key).values},
        source_.activations.at(site.point == HookPoint::kQ ? query : key).values, rotary,
        gradients.at({HookPoint::kPattern, site.layer}).values);
    return site.point == HookPoint::kQ ? attention.OfQueries() : attention.OfKeys();
  }

  RunContext& context_;
  const ModelConfig& config_;
  const AttributionRequest& request_;
  DifferentiableMetric metric_;
  std::set<HookSite> captured_, wanted_;
  Segment clean_, source_;
  double clean_metric_ = 0, source_metric_ = 0;
  std::vector<Activations> gradients_;  // of each of Runs()
};

}  // namespace

bool HasNodes(HookPoint point) { return !IsOverKeys(point) && PartOf(point) != PassPart::kHead; }

int64_t UnitsOf(HookPoint point, const ModelConfig& config) {
  const SiteShape shape = ShapeOf(point, config);
  if (shape.has_head_axis) return shape.heads;
  const bool neurons =
      point == HookPoint::kMlpPre || point == HookPoint::kMlpPreLinear || point == HookPoint::kMlpPost;
  return neurons ? shape.width : 1;
}

absl::StatusOr<Attribution> Attribute(RunContext& context, const AttributionRequest& request) {
  return Attributor(context, request).Run();
}

int64_t AttributionBytes(const ModelConfig& config, const AttributionRequest& request, int batch_rows) {
  const int64_t length = request.clean.length(), d = config.d_model;
  const bool integrates = request.method == AttributionMethod::kIntegratedGradients;
  const bool drops = request.method == AttributionMethod::kGradDrop;
  int64_t values = 0, gradients = 0, scores = 0;  // of one position
  for (const HookSite& site : request.sites) {
    const bool anew = HasExactSoftmax(request, site);
    values += anew ? config.query_width() + config.key_value_width() : ShapeOf(site.point, config).size();
    gradients += anew ? config.head_count * length : ShapeOf(site.point, config).size();
    scores += UnitsOf(site.point, config);
  }
  if (request.edges) {
    for (const HookSite& site : SenderSites(config)) values += ShapeOf(site.point, config).size();
    for (const HookSite& site : ReceiverSites(config)) gradients += ShapeOf(site.point, config).size();
  }
  const int64_t steps = integrates ? StepsAtOnce(request, batch_rows) : 1;
  const bool has_openings = request.metric == MetricKind::kOpenings;
  const int64_t opening = has_openings ? request.tokens.longest_opening() : 1;
  const int64_t rows = steps * length + opening - 1;
  // What the runs back record; of integrated gradients, and of several openings, the sum besides; scores
  // only after.
  const int64_t recorded = length * gradients *
                           (integrates ? steps + (steps < request.steps ? 1 : 0)
                            : drops    ? config.layer_count()
                                       : 1) *
                           (has_openings ? 2 : 1);
  const int64_t scored = length * scores * (drops ? 2 : 1);
  int64_t floats = (length + request.source.length()) * values;
  floats += integrates ? std::max(recorded, length * gradients + scored) : recorded + scored;
  if (integrates) floats += (2 * length + rows) * d;
  // A layer that is made again is captured again.
  if (!request.keeps_all_layers) floats += length * values / std::max<int64_t>(1, LayersOf(request));
  // While attention is taken back: the pattern, that after its edits, and their gradient. Then, of one
  // site, what the source's run has there, turned.
  if (request.exact_softmax) {
    floats += 3 * length * length * config.head_count + request.source.length() * config.query_width();
  }
  // Logits, and gradients with respect to them.
  floats += (2 + (1 + steps) * opening) * config.vocabulary_size;
  // Of what is captured or recorded, beside its values: positions, here and in the plan.
  const int64_t records =
      static_cast<int64_t>(request.sites.size()) * (2 + steps + (drops ? config.layer_count() : 0));
  const int64_t objects = records * (256 + 2 * length * static_cast<int64_t>(sizeof(int)));
  const int64_t edges = request.edges ? EdgeScoresBytes(config) : 0;
  const int64_t caches = has_openings ? KeyValueBytes(config, length) +
                                            KeyValueBytes(config, request.source.length()) +
                                            OpeningBytes(config, request.tokens)
                                      : 0;
  return floats * static_cast<int64_t>(sizeof(float)) + objects + edges + caches +
         TapeBytes(config, rows, request.keeps_all_layers) + GradientScratchBytes(config, rows);
}

}  // namespace mechinterp::engine
