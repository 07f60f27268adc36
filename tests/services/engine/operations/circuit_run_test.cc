// Circuits against exact path patching's reference, and against the plain model taken layer by layer.

#include "services/engine/operations/circuit_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <random>

#include "nlohmann/json.hpp"
#include "tests/services/engine/fixture.h"
#include "tests/services/engine/naive_llama.h"
#include "tests/services/engine/random_checkpoint.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

struct Finished {
  CircuitBaselines baselines;
  std::vector<CircuitResult> results;
};

Finished RunAll(const std::shared_ptr<const Model>& model, CircuitRequest request,
                const std::vector<Circuit>& circuits) {
  request.circuit_count = static_cast<int>(circuits.size());
  request.circuit = [&](int i) { return circuits[i]; };
  DirectExecutor executor(model);
  RunContext context{executor, nullptr, absl::ZeroDuration()};
  Finished finished;
  EXPECT_THAT(RunCircuits(context, request,
                          {[&](const CircuitBaselines& baselines) {
                             finished.baselines = baselines;
                             return absl::OkStatus();
                           },
                           [&](const CircuitResult& result) {
                             finished.results.push_back(result);
                             return absl::OkStatus();
                           }}),
              IsOk());
  return finished;
}

std::shared_ptr<const Model> LoadModel(const std::string& directory, bool by_libtorch) {
  LoadOptions options;
  options.compute_type = NumberFormat::kFloat32;
  options.head = kUnquantized;
  options.device.by_libtorch = by_libtorch;
  return *Model::Load(directory, options);
}

struct FixtureCase {
  const char* name;
  bool by_libtorch;
};

class FixtureCircuits : public testing::TestWithParam<FixtureCase> {
 protected:
  FixtureCircuits() {
    request_.prompt.ids = document_["clean"].get<std::vector<TokenId>>();
    request_.source.ids = document_["source"].get<std::vector<TokenId>>();
    request_.metrics.refusal_token_ids = document_["refusal_token_ids"].get<std::vector<TokenId>>();
    request_.metrics.compliance_token_ids = document_["compliance_token_ids"].get<std::vector<TokenId>>();
  }

  const ModelConfig& config() const { return model_->config(); }

  const std::shared_ptr<const Model> model_ = LoadModel(TestData(GetParam().name), GetParam().by_libtorch);
  const json document_ =
      json::parse(std::ifstream(TestData(std::string("attribution/") + GetParam().name + ".json")));
  CircuitRequest request_;
};

// What the reference found when one receiver alone saw its sender's source value: everything but
// that edge.
TEST_P(FixtureCircuits, WithoutOneEdgeAreExactPaths) {
  std::vector<Circuit> circuits;
  std::vector<double> expected;
  double largest = 0;
  for (const json& path : document_["paths"]) {
    const auto edge = EdgeOfName(path["edge"].get<std::string>(), config());
    ASSERT_THAT(edge, IsOk());
    circuits.push_back(CircuitOfEdges(config(), {*edge}, /*complement=*/true));
    expected.push_back(path["metric"].get<double>());
    largest = std::max(largest, std::abs(expected.back()));
  }
  const Finished finished = RunAll(model_, request_, circuits);
  ASSERT_EQ(finished.results.size(), 40u);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(*finished.results[i].metrics.logit_difference, expected[i], 1e-4 * largest)
        << document_["paths"][i]["edge"];
  }
}

TEST_P(FixtureCircuits, OfAllAndOfNothingAreTheTwoRuns) {
  const Finished finished = RunAll(model_, request_,
                                   {CircuitOfEdges(config(), {}, true), CircuitOfEdges(config(), {}, false),
                                    CircuitOfNodes(config(), {}, true)});
  ASSERT_EQ(finished.results.size(), 3u);
  EXPECT_NEAR(*finished.results[0].faithfulness, 1, 1e-4);
  EXPECT_NEAR(*finished.results[1].faithfulness, 0, 1e-4);
  EXPECT_NEAR(*finished.results[2].faithfulness, 1, 1e-4);
  EXPECT_NEAR(*finished.results[0].metrics.kl_from_clean, 0, 1e-6);
  EXPECT_EQ(finished.results[1].edge_count, 0);
  int64_t edges = 0;
  for (const Receiver& receiver : Receivers(config())) edges += SenderCount(receiver, config());
  EXPECT_EQ(finished.results[0].edge_count, edges);
  EXPECT_EQ(finished.results[2].edge_count, edges);
}

INSTANTIATE_TEST_SUITE_P(, FixtureCircuits,
                         testing::Values(FixtureCase{"llama3-gqa", false}, FixtureCase{"llama3-gqa", true},
                                         FixtureCase{"llama31-rope-scaled", false}),
                         [](const auto& info) {
                           const std::string name = info.param.name;
                           return (name == "llama3-gqa" ? "Llama3" : "Llama31") +
                                  std::string(info.param.by_libtorch ? "ByLibtorch" : "");
                         });

// The plain model, taken through a circuit half a layer at a time: the source's run, in which what a
// half layer's receivers see change is added to what they read, tells what its senders write.
class NaiveCircuit {
 public:
  NaiveCircuit(const NaiveLlama& model, const ModelConfig& config, const CircuitRequest& request,
               const Circuit& circuit)
      : model_(model), config_(config), request_(request), circuit_(circuit), senders_(Senders(config)) {
    source_ = model.Run(request.source.ids, request.source.length());
    changes_.resize(senders_.size());
    const auto clean = model.Run(request.prompt.ids, request.prompt.length());
    changes_[0] = Difference(clean, senders_[0]);
  }

  std::vector<double> LastLogits() {
    for (int layer = 0; layer < config_.layer_count(); ++layer) {
      Advance(Sender::Kind::kHead, layer,
              {Receiver::Kind::kQuery, Receiver::Kind::kKey, Receiver::Kind::kValue});
      Advance(Sender::Kind::kMlp, layer, {Receiver::Kind::kMlp});
    }
    InterventionSet final_input;
    AddChanges({}, final_input);
    return model_.Run(request_.source.ids, request_.source.length(), final_input)
        .at({HookPoint::kLogits, 0})
        .back()[0];
  }

 private:
  using Rows = std::vector<std::vector<double>>;  // [T][D]

  Rows Difference(const NaiveLlama::Activations& run, const Sender& sender) const {
    Rows rows;
    const auto &here = run.at(SiteOf(sender)), &there = source_.at(SiteOf(sender));
    for (size_t t = 0; t < here.size(); ++t) {
      rows.push_back(here[t][sender.head]);
      for (size_t i = 0; i < rows[t].size(); ++i) rows[t][i] -= there[t][sender.head][i];
    }
    return rows;
  }

  void Advance(Sender::Kind writes, int layer, const std::vector<Receiver::Kind>& reads) {
    InterventionSet inputs;
    for (const Receiver& receiver : Receivers(config_)) {
      const bool here = receiver.layer == layer && receiver.kind != Receiver::Kind::kFinal;
      if (here && std::count(reads.begin(), reads.end(), receiver.kind) > 0) AddChanges(receiver, inputs);
    }
    // Of an MLP only some of whose neurons compute, the others are put back.
    if (const auto some = circuit_.neurons.find(layer);
        writes == Sender::Kind::kMlp && some != circuit_.neurons.end()) {
      Intervention others{{HookPoint::kMlpPost, layer}, {}, Replacement{{request_.source, {}, {}, {}}}};
      for (int n = 0; n < config_.d_ff; ++n) {
        if (std::count(some->second.begin(), some->second.end(), n) == 0) others.selector.dims.push_back(n);
      }
      inputs.push_back(others);
    }
    const auto run = model_.Run(request_.source.ids, request_.source.length(), inputs);
    for (size_t s = 0; s < senders_.size(); ++s) {
      if (senders_[s].kind == writes && senders_[s].layer == layer)
        changes_[s] = Difference(run, senders_[s]);
    }
  }

  // Adds to what a receiver reads in the source's run what it sees change, position by position.
  void AddChanges(const Receiver& receiver, InterventionSet& interventions) const {
    const HookSite site = SiteOf(receiver, config_);
    const std::vector<bool>& sees = circuit_.sees[IndexOf(receiver, config_)];
    for (int t = 0; t < request_.source.length(); ++t) {
      HostTensor sum{{config_.d_model}, std::vector<float>(config_.d_model)};
      for (int i = 0; i < config_.d_model; ++i) {
        double value = 0;
        for (size_t s = 0; s < sees.size(); ++s) value += sees[s] ? changes_[s][t][i] : 0;
        sum.values[i] = static_cast<float>(value);
      }
      Intervention intervention{site, {}, Addition{std::move(sum), 1}};
      intervention.selector.positions.indices = {t};
      if (ShapeOf(site.point, config_).has_head_axis) intervention.selector.heads = {receiver.head};
      interventions.push_back(std::move(intervention));
    }
  }

  const NaiveLlama& model_;
  const ModelConfig& config_;
  const CircuitRequest& request_;
  const Circuit& circuit_;
  const std::vector<Sender> senders_;
  NaiveLlama::Activations source_;
  std::vector<Rows> changes_;
};

std::vector<Circuit> RandomCircuits(const ModelConfig& config, std::mt19937& random) {
  const std::vector<Sender> senders = Senders(config);
  std::vector<Edge> some, most;
  for (const Receiver& receiver : Receivers(config)) {
    for (int64_t s = 0; s < SenderCount(receiver, config); ++s) {
      if (random() % 10 == 0) some.push_back({senders[s], receiver});
      if (random() % 3 == 0) most.push_back({senders[s], receiver});
    }
  }
  std::vector<Node> nodes;
  for (const Sender& sender : senders) {
    if (random() % 2 == 0) continue;
    if (sender.kind == Sender::Kind::kHead) nodes.push_back({Node::Kind::kHead, sender.layer, sender.head});
    if (sender.kind != Sender::Kind::kMlp) continue;
    if (random() % 2 == 0) nodes.push_back({Node::Kind::kMlp, sender.layer, 0});
    for (int n = 0; n < config.d_ff; n += 3) nodes.push_back({Node::Kind::kNeuron, sender.layer, n});
  }
  return {CircuitOfEdges(config, some, false), CircuitOfEdges(config, some, true),
          CircuitOfEdges(config, most, false), CircuitOfNodes(config, nodes, false),
          CircuitOfNodes(config, nodes, true)};
}

struct RandomCase {
  const char* name;
  RandomFamily family;
};

class RandomCircuitsTest : public testing::TestWithParam<std::tuple<RandomCase, int>> {};

TEST_P(RandomCircuitsTest, AreThePlainModels) {
  const int seed = std::get<1>(GetParam());
  const RandomCheckpoint checkpoint(seed, std::get<0>(GetParam()).family);
  const auto model = LoadModel(checkpoint.directory(), seed % 2 == 1);
  const ModelConfig& config = model->config();
  const NaiveLlama naive(checkpoint.directory(), config);
  std::mt19937 random(seed);
  CircuitRequest request;
  const int length = 3 + static_cast<int>(random() % 10);
  for (int t = 0; t < length; ++t) {
    request.prompt.ids.push_back(static_cast<TokenId>(random() % config.vocabulary_size));
    request.source.ids.push_back(static_cast<TokenId>(random() % config.vocabulary_size));
  }
  request.metrics.refusal_token_ids = {1};
  request.metrics.compliance_token_ids = {2};
  request.metrics.top_token_count = static_cast<int>(config.vocabulary_size);
  const std::vector<Circuit> circuits = RandomCircuits(config, random);
  const Finished finished = RunAll(model, request, circuits);
  ASSERT_EQ(finished.results.size(), circuits.size());
  for (size_t i = 0; i < circuits.size(); ++i) {
    const std::vector<double> expected = NaiveCircuit(naive, config, request, circuits[i]).LastLogits();
    for (const TokenProbability& token : finished.results[i].metrics.top_tokens) {
      EXPECT_NEAR(token.logit, expected[token.id], 1e-4 * std::max(1.0, std::abs(expected[token.id])))
          << "circuit " << i << ", token " << token.id;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    , RandomCircuitsTest,
    testing::Combine(testing::Values(RandomCase{"Llama", {}}, RandomCase{"Biases", {.biases = true}},
                                     RandomCase{"Mistral", {"MistralForCausalLM", false, 4}},
                                     RandomCase{"Qwen3", {"Qwen3ForCausalLM"}}),
                     testing::Range(1, 5)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) + std::to_string(std::get<1>(info.param));
    });

TEST(CircuitNames, AreThoseOfTheModel) {
  ModelConfig config;
  config.layers.resize(3);
  config.head_count = 4;
  config.key_value_head_count = 2;
  config.d_ff = 10;
  for (const Receiver& receiver : Receivers(config)) {
    EXPECT_EQ(ReceiverOfName(NameOf(receiver), config), receiver);
    EXPECT_EQ(Receivers(config)[IndexOf(receiver, config)], receiver);
  }
  for (const Sender& sender : Senders(config)) {
    EXPECT_EQ(SenderOfName(NameOf(sender), config), sender);
    EXPECT_EQ(Senders(config)[IndexOf(sender, config)], sender);
  }
  for (const char* name : {"L0.H3->L1.q0", "embed->L0.v1", "L0.H0->L0.mlp_in", "L2.mlp->final"}) {
    const auto edge = EdgeOfName(name, config);
    ASSERT_THAT(edge, IsOk());
    EXPECT_EQ(NameOf(*edge), name);
  }
  for (const char* name : {"L0.H0", "L2.mlp", "L1.N9"}) {
    const auto node = NodeOfName(name, config);
    ASSERT_THAT(node, IsOk());
    EXPECT_EQ(NameOf(*node), name);
  }
  for (const char* name : {"", "L0.H0", "L0.H4->final", "L3.H0->final", "L0.H0->L1.k2", "L0.H0->L1.q-1", "->",
                           "L0.H0->", "L0.H0->L0.q1", "L0.mlp->L0.mlp_in", "L.H0->final", "final->embed",
                           "L0.H0->L1.q1x", "L00000000000000000001.H0->final"}) {
    EXPECT_FALSE(EdgeOfName(name, config).ok()) << name;
  }
  for (const char* name : {"embed", "L0.H4", "L1.N10", "L1.N-1", "L9.N1", "L1.N", "N1", "L1.q0"}) {
    EXPECT_FALSE(NodeOfName(name, config).ok()) << name;
  }
  EXPECT_THAT(EdgeOfName("L1.mlp->L1.v0", config),
              StatusIs(absl::StatusCode::kInvalidArgument, testing::HasSubstr("L1.v0 comes before L1.mlp")));
}

}  // namespace
}  // namespace mechinterp::engine
