#include "services/engine/operations/direct_attribution.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "services/common/status_macros.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/weights/pass_scratch.h"

namespace mechinterp::engine {
namespace {

double MeanOf(const std::vector<TokenId>& ids, absl::Span<const float> logits) {
  double sum = 0;
  for (TokenId id : ids) sum += logits[id];
  return sum / static_cast<double>(ids.size());
}

bool HasOutputBias(const ModelConfig& config, int layer) {
  return config.layers[layer].attention_output_bias;
}

int64_t OutputBiasCount(const ModelConfig& config) {
  return std::count_if(config.layers.begin(), config.layers.end(),
                       [](const LayerConfig& layer) { return layer.attention_output_bias; });
}

bool Before(const NeuronContribution& a, const NeuronContribution& b) {
  const double x = std::abs(a.value), y = std::abs(b.value);
  return x != y ? x > y : std::tie(a.layer, a.neuron) < std::tie(b.layer, b.neuron);
}

// While the largest are looked for: they, and a layer's.
int64_t MostNeuronsHeld(const ModelConfig& config, const DirectAttributionRequest& request) {
  if (request.neuron_count == 0) return 0;
  return std::min<int64_t>(int64_t{request.neuron_count} + config.d_ff,
                           int64_t{config.layer_count()} * config.d_ff);
}

// Attributions of a prompt's positions on their way.
class DirectAttributor {
 public:
  DirectAttributor(RunContext& context, const DirectAttributionRequest& request)
      : context_(context),
        config_(context.executor.model().config()),
        request_(request),
        senders_(Senders(config_)) {}

  absl::Status Run(const std::function<absl::Status(const DirectAttribution&)>& sink) {
    FindSites();
    ABSTRACT_RETURN_IF_ERROR(RunBefore(request_.positions.back()));
    if (OutputBiasCount(config_) > 0) ABSTRACT_RETURN_IF_ERROR(FindBiases());
    for (const int position : request_.positions) {
      ABSTRACT_RETURN_IF_ERROR(RunBothWays(position));
      ABSTRACT_RETURN_IF_ERROR(sink(ReadOut(position)));
    }
    return absl::OkStatus();
  }

 private:
  // Where senders' values are read, and the direction is. Heads at z, but where hook_result is edited: the
  // products by W_O that it would take, for each head, are saved.
  HookSite SiteOf(const Sender& sender) const {
    const HookSite site = engine::SiteOf(sender);
    const bool is_edited = request_.plan != nullptr && request_.plan->edits.count(site) > 0;
    return sender.kind == Sender::Kind::kHead && !is_edited ? HookSite{HookPoint::kZ, sender.layer} : site;
  }

  void FindSites() {
    for (const Sender& sender : senders_) values_at_.insert(SiteOf(sender));
    for (int layer = 0; layer < config_.layer_count() && request_.neuron_count > 0; ++layer) {
      values_at_.insert({HookPoint::kMlpPost, layer});
    }
    directions_at_ = values_at_;
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      if (HasOutputBias(config_, layer)) directions_at_.insert({HookPoint::kResult, layer});
    }
  }

  // The prompt's run as far as before a position, for its keys and values.
  absl::Status RunBefore(int position) {
    if (position == 0) return absl::OkStatus();
    Segment before;
    before.tokens.assign(request_.prompt.ids.begin(), request_.prompt.ids.begin() + position);
    before.prompt_length = request_.prompt.length();
    before.plan = request_.plan;
    before.cache = std::make_shared<KvCache>(config_);
    before.cache->Reserve(position);
    Segment* const only[] = {&before};
    ABSTRACT_RETURN_IF_ERROR(context_.Run(only));
    cache_ = std::move(before.cache);
    return absl::OkStatus();
  }

  // The position on top of those before it, and the way back from its logits.
  absl::Status RunBothWays(int position) {
    run_ = Segment();
    run_.tokens = {request_.prompt.ids[position]};
    run_.first_position = run_.shared_length = position;
    if (position > 0) run_.shared = cache_;
    run_.prompt_length = request_.prompt.length();
    run_.plan = WithCaptures(request_.plan.get(), request_.prompt.length(), values_at_, {position});
    auto back = std::make_shared<GradientPlan>();
    back->runs = {{BackwardRule::kDirect, -1}};
    back->metric = [this](absl::Span<const float>, absl::Span<float> gradient) { SetGradient(gradient); };
    for (const HookSite& site : directions_at_) back->captures[site] = {site, {position}};
    run_.gradient = std::move(back);
    Segment* const only[] = {&run_};
    return context_.Run(only);
  }

  DirectAttribution ReadOut(int position) const {
    DirectAttribution result;
    result.position = position;
    const std::vector<float>& logits = run_.logits.values;
    result.logit_difference =
        MeanOf(request_.refusal_token_ids, logits) - MeanOf(request_.compliance_token_ids, logits);
    for (const Sender& sender : senders_) result.senders.push_back(TermOf(sender));
    if (!biases_.empty()) result.biases = BiasTerms();
    if (request_.neuron_count > 0) result.neurons = LargestNeurons();
    return result;
  }

  // Of the difference of means, times the product of the sets' sizes: whole numbers, which no
  // format of the products' operands rounds.
  void SetGradient(absl::Span<float> gradient) const {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    const auto refusals = static_cast<float>(request_.refusal_token_ids.size());
    const auto compliances = static_cast<float>(request_.compliance_token_ids.size());
    for (TokenId id : request_.refusal_token_ids) gradient[id] += compliances;
    for (TokenId id : request_.compliance_token_ids) gradient[id] -= refusals;
  }
  double ScaleOfGradient() const {
    return 1.0 / (static_cast<double>(request_.refusal_token_ids.size()) *
                  static_cast<double>(request_.compliance_token_ids.size()));
  }

  const float* ValuesAt(const HookSite& site) const { return run_.activations.at(site).values.values.data(); }
  const float* DirectionAt(const HookSite& site) const {
    return run_.gradients[0].at(site).values.values.data();
  }

  // Of elements [first, first + count) of a site's.
  double Term(const HookSite& site, int64_t first, int64_t count) const {
    const float* values = ValuesAt(site) + first;
    return ScaleOfGradient() * std::inner_product(values, values + count, DirectionAt(site) + first, 0.0);
  }
  double TermOf(const Sender& sender) const {
    const HookSite site = SiteOf(sender);
    const int64_t width = site.point == HookPoint::kZ ? config_.head_size : config_.d_model;
    return Term(site, sender.head * width, width);
  }

  // A bias is what attention adds where z is zero.
  absl::Status FindBiases() {
    std::vector<Segment> segments;
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      if (!HasOutputBias(config_, layer)) continue;
      Segment& segment = segments.emplace_back();
      segment.residual = {{1, config_.d_model}, std::vector<float>(config_.d_model)};
      segment.branch = {{1, config_.query_width()}, std::vector<float>(config_.query_width())};
      segment.entry_layer = layer;
      segment.entry_point = HookPoint::kZ;
      segment.plan = WithCaptures(nullptr, 1, {{HookPoint::kAttnOut, layer}}, {0});
    }
    std::vector<Segment*> pointers;
    for (Segment& segment : segments) pointers.push_back(&segment);
    ABSTRACT_RETURN_IF_ERROR(context_.Run(pointers));
    for (Segment& segment : segments) biases_.merge(segment.activations);
    return absl::OkStatus();
  }

  // The direction at a bias, before edits of attn_out, is that of any head's result.
  double BiasTerms() const {
    double sum = 0;
    for (const auto& [site, bias] : biases_) {
      const std::vector<float>& values = bias.values.values;
      sum += std::inner_product(values.begin(), values.end(), DirectionAt({HookPoint::kResult, site.layer}),
                                0.0);
    }
    return sum * ScaleOfGradient();
  }

  std::vector<NeuronContribution> LargestNeurons() const {
    const auto count = static_cast<size_t>(request_.neuron_count);
    std::vector<NeuronContribution> largest;
    largest.reserve(MostNeuronsHeld(config_, request_));
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      for (int64_t i = 0; i < config_.d_ff; ++i) {
        largest.push_back({layer, i, Term({HookPoint::kMlpPost, layer}, i, 1)});
      }
      if (largest.size() <= count) continue;
      std::nth_element(largest.begin(), largest.begin() + static_cast<int64_t>(count), largest.end(), Before);
      largest.resize(count);
    }
    std::sort(largest.begin(), largest.end(), Before);
    return largest;
  }

  RunContext& context_;
  const ModelConfig& config_;
  const DirectAttributionRequest& request_;
  const std::vector<Sender> senders_;
  std::set<HookSite> values_at_, directions_at_;
  std::shared_ptr<const KvCache> cache_;           // of what comes before the last position
  std::map<HookSite, RecordedActivation> biases_;  // [1, 1, D] each, at the layers' attn_out
  Segment run_;                                    // of the position that is read out
};

}  // namespace

double DirectAttribution::Sum() const {
  return std::accumulate(senders.begin(), senders.end(), biases.value_or(0));
}

absl::Status AttributeDirectly(RunContext& context, const DirectAttributionRequest& request,
                               const std::function<absl::Status(const DirectAttribution&)>& sink) {
  return DirectAttributor(context, request).Run(sink);
}

int64_t DirectAttributionBytes(const ModelConfig& config, const DirectAttributionRequest& request) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t d = config.d_model, width = config.query_width();
  const int64_t layers = config.layer_count(), biases = OutputBiasCount(config);
  const bool neurons = request.neuron_count > 0;
  const int64_t recorded = d + layers * (width + d + (neurons ? config.d_ff : 0)) +
                           int64_t{request.edited_result_layers} * (config.head_count * d - width);
  // The gradient with respect to the logits; once it has gone back, directions, and what is made
  // of them.
  const int64_t directions = kFloat * (recorded + biases * config.head_count * d);
  const int64_t of_biases = biases * (kFloat * (3 * d + width) + static_cast<int64_t>(sizeof(Segment)));
  const int64_t terms = (1 + layers * (config.head_count + 1)) * static_cast<int64_t>(sizeof(double)) +
                        MostNeuronsHeld(config, request) * static_cast<int64_t>(sizeof(NeuronContribution));
  const int64_t back = std::max(kFloat * config.vocabulary_size, directions + std::max(of_biases, terms));
  const int64_t sites = 1 + layers * (neurons ? 3 : 2);
  const int64_t before = request.positions.back();
  return kFloat * (recorded + config.vocabulary_size) + back + sites * 1024 +
         GrowingCacheBytes(config, before, before) + GradientScratchBytes(config, 1);
}

}  // namespace mechinterp::engine
