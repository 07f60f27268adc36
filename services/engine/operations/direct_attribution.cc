#include "services/engine/operations/direct_attribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <tuple>

#include "services/common/status_macros.h"
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

// One attribution on its way.
class DirectAttributor {
 public:
  DirectAttributor(RunContext& context, const DirectAttributionRequest& request)
      : context_(context), config_(context.executor.model().config()), request_(request) {}

  absl::StatusOr<DirectAttribution> Run() {
    ABSTRACT_RETURN_IF_ERROR(RunBothWays());
    DirectAttribution result;
    const std::vector<float>& logits = run_.logits.values;
    result.logit_difference =
        MeanOf(request_.refusal_token_ids, logits) - MeanOf(request_.compliance_token_ids, logits);
    for (const Sender& sender : Senders(config_)) result.senders.push_back(TermOf(sender));
    if (OutputBiasCount(config_) > 0) {
      ABSTRACT_ASSIGN_OR_RETURN(result.biases, BiasTerms());
    }
    if (request_.neuron_count > 0) result.neurons = LargestNeurons();
    return result;
  }

 private:
  // Where senders' values are read, and the direction is. Heads at z: the products by W_O that
  // hook_result would take, for each head, are saved.
  static HookSite SiteOf(const Sender& sender) {
    return sender.kind == Sender::Kind::kHead ? HookSite{HookPoint::kZ, sender.layer}
                                              : engine::SiteOf(sender);
  }

  // The prompt as far as the position, and the way back from its logits.
  absl::Status RunBothWays() {
    const std::vector<int> positions = {request_.position};
    run_.tokens.assign(request_.prompt.ids.begin(), request_.prompt.ids.begin() + request_.position + 1);
    run_.prompt_length = request_.prompt.length();
    std::set<HookSite> sites;
    for (const Sender& sender : Senders(config_)) sites.insert(SiteOf(sender));
    for (int layer = 0; layer < config_.layer_count() && request_.neuron_count > 0; ++layer) {
      sites.insert({HookPoint::kMlpPost, layer});
    }
    run_.plan = WithCaptures(request_.plan.get(), request_.prompt.length(), sites, positions);
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      if (HasOutputBias(config_, layer)) sites.insert({HookPoint::kResult, layer});
    }
    auto back = std::make_shared<GradientPlan>();
    back->runs = {{BackwardRule::kDirect, -1}};
    back->metric = [this](absl::Span<const float>, absl::Span<float> gradient) { SetGradient(gradient); };
    for (const HookSite& site : sites) back->captures[site] = {site, positions};
    run_.gradient = std::move(back);
    Segment* const only[] = {&run_};
    return context_.Run(only);
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
    const int64_t width = sender.kind == Sender::Kind::kHead ? config_.head_size : config_.d_model;
    return Term(SiteOf(sender), sender.head * width, width);
  }

  // A bias is what attention adds where z is zero. The direction there, before edits of attn_out,
  // is that of any head's result.
  absl::StatusOr<double> BiasTerms() {
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
    double sum = 0;
    for (const Segment& segment : segments) {
      const int layer = segment.entry_layer;
      const std::vector<float>& bias = segment.activations.at({HookPoint::kAttnOut, layer}).values.values;
      sum += std::inner_product(bias.begin(), bias.end(), DirectionAt({HookPoint::kResult, layer}), 0.0);
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
  Segment run_;
};

}  // namespace

double DirectAttribution::Sum() const {
  return std::accumulate(senders.begin(), senders.end(), biases.value_or(0));
}

absl::StatusOr<DirectAttribution> AttributeDirectly(RunContext& context,
                                                    const DirectAttributionRequest& request) {
  return DirectAttributor(context, request).Run();
}

int64_t DirectAttributionBytes(const ModelConfig& config, const DirectAttributionRequest& request) {
  constexpr int64_t kFloat = sizeof(float);
  const int64_t d = config.d_model, width = config.query_width();
  const int64_t layers = config.layer_count(), biases = OutputBiasCount(config);
  const bool neurons = request.neuron_count > 0;
  const int64_t recorded = d + layers * (width + d + (neurons ? config.d_ff : 0));
  // The gradient with respect to the logits; once it has gone back, directions, and what is made
  // of them.
  const int64_t directions = kFloat * (recorded + biases * config.head_count * d);
  const int64_t of_biases = biases * (kFloat * (3 * d + width) + static_cast<int64_t>(sizeof(Segment)));
  const int64_t terms = (1 + layers * (config.head_count + 1)) * static_cast<int64_t>(sizeof(double)) +
                        MostNeuronsHeld(config, request) * static_cast<int64_t>(sizeof(NeuronContribution));
  const int64_t back = std::max(kFloat * config.vocabulary_size, directions + std::max(of_biases, terms));
  const int64_t sites = 1 + layers * (neurons ? 3 : 2);
  return kFloat * (recorded + config.vocabulary_size) + back + sites * 1024 + GradientScratchBytes(config, 1);
}

}  // namespace mechinterp::engine
