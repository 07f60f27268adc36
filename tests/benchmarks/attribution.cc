// Attribution over all heads, neurons and positions, exact paths and circuits, beside libtorch's autograd.

#include "services/engine/operations/attribution.h"

#include <memory>
#include <optional>
#include <ostream>

#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/circuit_run.h"
#include "services/engine/operations/sweep.h"
#include "tests/benchmarks/autograd_peer.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

constexpr int kPaths = 1000, kCircuitEdges = 300;

class Attributions {
 public:
  Attributions(std::shared_ptr<const engine::Model> model, int tokens)
      : config_(model->config()), executor_(model) {
    clean_ = RandomPrompt(config_, tokens, 1);
    source_ = RandomPrompt(config_, tokens, 2);
    metrics_.refusal_token_ids = {1};
    metrics_.compliance_token_ids = {2};
  }

  // Scores of all heads, neurons and positions; or of all edges.
  absl::StatusOr<double> Attribute(engine::AttributionMethod method, bool edges) {
    engine::AttributionRequest request;
    request.clean = clean_;
    request.source = source_;
    request.tokens = metrics_;
    request.method = method;
    request.edges = edges;
    for (const char* glob : {"blocks.*.attn.hook_z", "blocks.*.mlp.hook_post", "blocks.*.hook_resid_pre"}) {
      if (edges) break;
      for (const engine::HookSite& site : engine::MatchingSites(glob, config_)) request.sites.push_back(site);
    }
    const Clock::time_point start = Clock::now();
    ABSTRACT_RETURN_IF_ERROR(engine::Attribute(context_, request).status());
    return SecondsSince(start);
  }

  // One forward pass of as many rows.
  absl::StatusOr<double> Forward() {
    engine::Segment segment;
    segment.tokens = clean_.ids;
    segment.logits_rows = engine::LogitsRows::kLast;
    engine::Segment* const segments[] = {&segment};
    const Clock::time_point start = Clock::now();
    ABSTRACT_RETURN_IF_ERROR(context_.Run(segments));
    return SecondsSince(start);
  }

  // Exact path patching of edges spread over the model, at the last five positions together.
  absl::StatusOr<double> Paths() {
    const std::vector<engine::Edge> edges = SpreadEdges(kPaths);
    const Clock::time_point start = Clock::now();
    engine::PlanCompiler compiler(config_);
    Violations violations;
    for (const engine::Edge& edge : edges) {
      engine::Intervention intervention;
      intervention.site = engine::SiteOf(edge.receiver, config_);
      if (engine::ShapeOf(intervention.site.point, config_).has_head_axis) {
        intervention.selector.heads = {edge.receiver.head};
      }
      engine::PathPatch patch{engine::SiteOf(edge.sender), std::nullopt, {source_, {}, {}, {}}};
      if (edge.sender.kind == engine::Sender::Kind::kHead) patch.sender_head = edge.sender.head;
      intervention.edit = patch;
      intervention.selector.positions.ranges = {{-5, std::nullopt}};
      compiler.Add(clean_, {intervention}, {}, violations.root());
    }
    ABSTRACT_ASSIGN_OR_RETURN(const auto plans, engine::RunSourcesAndFinish(context_, compiler));
    const engine::SweepSink sink{[](const engine::SweepBaselines&) { return absl::OkStatus(); },
                                 [](const engine::SweepResult&) { return absl::OkStatus(); }};
    ABSTRACT_RETURN_IF_ERROR(
        engine::RunPatchSweep(context_, {clean_, plans, metrics_, std::nullopt}, sink).status());
    return SecondsSince(start);
  }

  // A circuit of heads spread over the model, each of which reads the embedding by its query and its
  // value, and the head before by its query, and writes into the logits; besides the two prompts' own runs.
  absl::StatusOr<double> Circuit() {
    std::vector<engine::Edge> edges;
    engine::Sender before;
    const int heads = kCircuitEdges / 4, layers = config_.layer_count();
    for (int i = 0; i < heads; ++i) {
      const int layer = i * layers / heads, head = i * 7 % config_.head_count;
      const int key_head = head / (config_.head_count / config_.key_value_head_count);
      const engine::Receiver query{engine::Receiver::Kind::kQuery, layer, head};
      const engine::Sender sender{engine::Sender::Kind::kHead, layer, head};
      edges.insert(edges.end(),
                   {{{}, query}, {{}, {engine::Receiver::Kind::kValue, layer, key_head}}, {sender, {}}});
      if (engine::IndexOf(before, config_) < engine::SenderCount(query, config_))
        edges.push_back({before, query});
      before = sender;
    }
    Clock::time_point start;
    const engine::CircuitRequest request{
        clean_, source_, 1, [&](int) { return engine::CircuitOfEdges(config_, edges, false); }, metrics_};
    const engine::CircuitSink sink{[&](const engine::CircuitBaselines&) {
                                     start = Clock::now();
                                     return absl::OkStatus();
                                   },
                                   [](const engine::CircuitResult&) { return absl::OkStatus(); }};
    ABSTRACT_RETURN_IF_ERROR(engine::RunCircuits(context_, request, sink));
    return SecondsSince(start);
  }

 private:
  std::vector<engine::Edge> SpreadEdges(int count) const {
    const std::vector<engine::Sender> senders = engine::Senders(config_);
    const std::vector<engine::Receiver> receivers = engine::Receivers(config_);
    std::vector<engine::Edge> edges;
    for (int i = 0; i < count; ++i) {
      const engine::Receiver& receiver = receivers[receivers.size() * i / count];
      edges.push_back({senders[i * 7919 % engine::SenderCount(receiver, config_)], receiver});
    }
    return edges;
  }

  const engine::ModelConfig& config_;
  engine::DirectExecutor executor_;
  engine::RunContext context_{executor_, {}, {}};
  engine::TokenizedPrompt clean_, source_;
  engine::MetricOptions metrics_;
};

}  // namespace

absl::Status RunAttributions(const BenchmarkOptions& options, std::ostream& out) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
  const int tokens = options.prompt_tokens_or(25);
  Attributions ours(model, tokens);
  std::optional<AutogradPeer> peer;
  if (options.autograd) peer.emplace(model->config(), options.threads);
  const auto seconds = [&](Measurements& measurements, const char* name,
                           auto measure) -> absl::StatusOr<double> {
    ABSTRACT_ASSIGN_OR_RETURN(const double taken, measure());
    measurements.Add(name, "s", taken);
    out << "  " << name << ": " << taken << " s" << std::endl;  // some take minutes
    return taken;
  };
  using Method = engine::AttributionMethod;
  ABSTRACT_RETURN_IF_ERROR(ours.Attribute(Method::kGradient, false).status());  // warm up
  Measurements measurements;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    ABSTRACT_ASSIGN_OR_RETURN(const double forward,
                              seconds(measurements, "forward pass", [&] { return ours.Forward(); }));
    ABSTRACT_RETURN_IF_ERROR(
        seconds(measurements, "a circuit of some 280 edges", [&] { return ours.Circuit(); }).status());
    ABSTRACT_ASSIGN_OR_RETURN(const double gradient, seconds(measurements, "AtP, nodes", [&] {
                                return ours.Attribute(Method::kGradient, false);
                              }));
    ABSTRACT_RETURN_IF_ERROR(seconds(measurements, "RelP, nodes", [&] {
                               return ours.Attribute(Method::kRelevance, false);
                             }).status());
    ABSTRACT_RETURN_IF_ERROR(seconds(measurements, "AtP, edges", [&] {
                               return ours.Attribute(Method::kGradient, true);
                             }).status());
    ABSTRACT_RETURN_IF_ERROR(seconds(measurements, "integrated gradients (5), edges", [&] {
                               return ours.Attribute(Method::kIntegratedGradients, true);
                             }).status());
    ABSTRACT_RETURN_IF_ERROR(
        seconds(measurements, "1,000 exact paths", [&] { return ours.Paths(); }).status());
    // The two forward passes run together.
    measurements.AddRatio("way back / forward pass", gradient - 2 * forward, forward);
    if (!peer) continue;
    const Clock::time_point start = Clock::now();
    peer->Attribute(tokens);
    const double theirs = SecondsSince(start);
    measurements.Add("autograd, fp32, nodes", "s", theirs);
    measurements.AddRatio("autograd / AtP", theirs, gradient);
  }
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
