// Models that are trained to a circuit, without training one to the end: the circuits and the
// prompts, truth.json, the losses, and the patched pass against the engine's patching.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include "data/make_trained/edge_draws.h"
#include "data/make_trained/trained_model.h"
#include "data/make_trained/truth.h"
#include "services/engine/model.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/edge_attribution.h"
#include "services/engine/operations/patch_run.h"
#include "tests/data/test_data.h"
#include "tests/status_matchers.h"

namespace mechinterp::make_trained {
namespace {

using engine::HookPoint;
using engine::HookSite;
using trainer::ValueOrFail;

constexpr const char* kTasks[] = {"refusal", "comparison", "lookup"};

TrainedOptions Options(const std::string& task, uint64_t seed) {
  const std::string data = ABSTRACT_SOURCE_DIR "/data/";
  TrainedOptions options;
  options.task = task;
  options.seed = seed;
  options.d_model = 32;
  options.head_size = 8;
  options.d_ff = 24;
  options.layers = 2;
  options.heldout_pairs = 2;
  options.attempts = 1;
  options.files = {data + "models/tiny-llama-refusal", data + "prompts.json", data + "refusal_phrases.json"};
  options.training.pairs_per_step = 16;
  options.training.optimizer.total_steps = 2;
  return options;
}

TrainedModel Make(const TrainedOptions& options) {
  return ValueOrFail(MakeTrained(options, [](int64_t, const CircuitLosses&) {}));
}

// With random weights, not those that training would begin with.
TrainedModel Untrained(const TrainedOptions& options) {
  TrainedModel model = ValueOrFail(PrepareTrained(options));
  Random random(options.seed);
  model.weights = trainer::InitialWeights(model.config, random);
  return model;
}

EdgeMask Only(const EdgeSpace& space, const std::vector<Edge>& edges) {
  EdgeMask mask = space.NoEdges();
  for (const Edge& edge : edges) mask[space.At(edge)] = 1;
  return mask;
}

TEST(EdgeSpace, NamesWhatTheForwardPassReachesInItsOrder) {
  const EdgeSpace space(2, 4, 2);
  EXPECT_EQ(space.sender_count(), 11);
  EXPECT_EQ(space.receiver_count(), 19);
  EXPECT_EQ(space.SenderName(space.Head(1, 2)), "L1.H2");
  EXPECT_EQ(space.SenderName(space.Mlp(0)), "L0.mlp");
  EXPECT_EQ(space.EdgeName({EdgeSpace::kEmbed, space.Query(0, 3)}), "embed->L0.q3");
  EXPECT_EQ(space.EdgeName({space.Head(0, 1), space.Key(1, 1)}), "L0.H1->L1.k1");
  EXPECT_EQ(space.EdgeName({space.Mlp(0), space.Value(1, 0)}), "L0.mlp->L1.v0");
  EXPECT_EQ(space.EdgeName({space.Head(1, 3), space.MlpIn(1)}), "L1.H3->L1.mlp");
  EXPECT_EQ(space.EdgeName({space.Mlp(1), space.Final()}), "L1.mlp->final");
  EXPECT_EQ(space.VisibleTo(space.Value(0, 1)), 1);
  EXPECT_EQ(space.VisibleTo(space.MlpIn(0)), 5);
  EXPECT_EQ(space.VisibleTo(space.Query(1, 0)), 6);
  // embed to 8 of attention; embed and four heads to the MLP; and so on.
  EXPECT_EQ(space.edges().size(), 8u + 5u + 6u * 8u + 10u + 11u);
}

// (x + y) where x comes through one edge and y through another.
TEST(Circuit, TakesPatchedEdgesFromTheSource) {
  const EdgeSpace space(2, 4, 2);
  const auto first = [](const std::vector<Value>& seen) { return Value{seen[0][0]}; };
  const auto sum = [](const std::vector<Value>& seen) { return Value{seen[0][0] + seen[1][1]}; };
  const Circuit circuit{{{EdgeSpace::kEmbed, ""},
                         {space.Head(0, 1), "", {{0, space.Value(0, 0)}}, first},
                         {space.Mlp(0), "", {{1, space.MlpIn(0)}, {0, space.MlpIn(0)}}, sum},
                         {EdgeSpace::kEmbed, "", {{2, space.Final()}}, first}}};
  const Edge to_head{EdgeSpace::kEmbed, space.Value(0, 0)}, to_mlp{EdgeSpace::kEmbed, space.MlpIn(0)};
  const Edge from_head{space.Head(0, 1), space.MlpIn(0)}, out{space.Mlp(0), space.Final()};
  EXPECT_THAT(circuit.Edges(), testing::UnorderedElementsAre(to_head, to_mlp, from_head, out));
  const auto answer = [&](const std::vector<Edge>& edges) {
    return circuit.Answer(space, {1, 10}, {2, 30}, Only(space, edges));
  };
  EXPECT_EQ(circuit.Answer(space, {1, 10}), 11);
  EXPECT_EQ(answer({}), 11);
  EXPECT_EQ(answer({to_head}), 12);
  EXPECT_EQ(answer({from_head}), 12);
  EXPECT_EQ(answer({to_mlp}), 31);
  EXPECT_EQ(answer({out}), 32);
  EXPECT_EQ(answer({{space.Head(0, 2), space.MlpIn(0)}}), 11);  // no edge of the circuit
}

TEST(EdgeDraws, KeepTheCircuitApartFromTheRest) {
  const TrainedModel model = Untrained(Options("lookup", 1));
  const EdgeSpace space = SpaceOf(model.config);
  const EdgeDraws draws(space, model.task.circuit);
  EXPECT_EQ(draws.circuit_edges().size() + draws.other_edges().size(), space.edges().size());
  Random random(1);
  for (int i = 0; i < 100; ++i) {
    const EdgeMask rest = draws.OfRest(random);
    EXPECT_THAT(rest, testing::Contains(1));
    for (const Edge& edge : draws.circuit_edges()) EXPECT_EQ(rest[space.At(edge)], 0);
  }
}

class TrainedTaskTest : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Tasks, TrainedTaskTest, testing::ValuesIn(kTasks),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(TrainedTaskTest, PairsAreEquallyLongAndHeldOutOnesAreNeverTrainedOn) {
  const TrainedModel model = Untrained(Options(GetParam(), 2));
  const EdgeSpace space = SpaceOf(model.config);
  const Sampler sampler(model.task);
  Random random(3);
  std::set<std::vector<TokenId>> taught;
  for (int i = 0; i < 1000; ++i) {
    const ExamplePair pair = sampler.ToTrainOn(random);
    ASSERT_EQ(pair.base.prompt.size(), pair.source.prompt.size());
    for (const Example* example : {&pair.base, &pair.source}) {
      taught.insert(example->prompt);
      const int answer = model.task.circuit.Answer(space, example->facts);
      ASSERT_EQ(example->answer.front(), model.task.answers[static_cast<size_t>(answer)].front());
    }
  }
  for (int i = 0; i < 100; ++i) {
    const ExamplePair pair = sampler.HeldOut(random);
    EXPECT_FALSE(taught.contains(pair.base.prompt) || taught.contains(pair.source.prompt));
  }
}

TEST_P(TrainedTaskTest, TruthSaysWhatTheCircuitIs) {
  const TrainedModel model = Make(Options(GetParam(), 3));
  const EdgeSpace space = SpaceOf(model.config);
  const auto truth = nlohmann::ordered_json::parse(model.files.at("truth.json"));
  std::set<std::string> edges, senders, ids;
  for (const Edge& edge : space.edges()) edges.insert(space.EdgeName(edge));
  for (const auto& edge : truth["edges"]) {
    EXPECT_TRUE(edges.contains(edge.get<std::string>())) << edge;
    const std::string name = edge.get<std::string>();
    senders.insert(name.substr(0, name.find("->")));
  }
  for (const auto& pair : truth["pairs"]) {
    ids.insert(pair["id"].get<std::string>());
    EXPECT_EQ(pair["clean"].size(), pair["source"].size());
    EXPECT_NE(pair["clean"], pair["source"]);
    EXPECT_NE(pair["metric"]["refusal_tokens"], pair["metric"]["compliance_tokens"]);
  }
  EXPECT_EQ(ids.size(), truth["pairs"].size());
  EXPECT_GE(ids.size(), 15u);
  std::set<std::string> nodes;
  for (const auto& node : truth["nodes"]) {
    nodes.insert(node["name"].get<std::string>());
    if (!node.contains("pairs")) continue;
    EXPECT_FALSE(node["pairs"].empty());
    EXPECT_LT(node["pairs"].size(), ids.size());
  }
  EXPECT_EQ(nodes, senders);
  for (const char* field : {"behaviour", "interchange", "strict", "circuit_alone"}) {
    EXPECT_LE(truth["accuracy"][field].get<double>(), 1) << field;
  }
}

TEST_P(TrainedTaskTest, CircuitsLieWhereTheSeedSays) {
  std::set<std::vector<std::string>> circuits;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const TrainedModel model = Untrained(Options(GetParam(), seed));
    std::vector<std::string> names;
    for (const Edge& edge : model.task.circuit.Edges()) names.push_back(SpaceOf(model.config).EdgeName(edge));
    circuits.insert(names);
  }
  EXPECT_GE(circuits.size(), 3u);
}

TEST(MakeTrained, DependsOnTheSeedAndNotOnTheNumberOfThreads) {
  TrainedOptions options = Options("comparison", 1);
  options.training.threads = 1;
  TrainedModel one = Make(options);
  options.training.threads = 3;
  TrainedModel three = Make(options);
  const auto a = one.weights.Named(), b = three.weights.Named();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(*a[i].tensor, *b[i].tensor)) << a[i].name;
  EXPECT_EQ(one.files.at("truth.json"), three.files.at("truth.json"));
}

TEST(MakeTrained, RefusesSizesWithoutRoomForACircuit) {
  TrainedOptions options = Options("comparison", 1);
  options.kv_heads = 3;
  const auto ignore = [](int64_t, const CircuitLosses&) {};
  EXPECT_THAT(MakeTrained(options, ignore), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(MakeTrained(Options("nothing", 1), ignore), StatusIs(absl::StatusCode::kNotFound));
}

TEST(CircuitTrainer, LowersAllThreeLosses) {
  TrainedOptions options = Options("comparison", 1);
  const TrainedModel model = Untrained(options);
  options.training.optimizer.total_steps = 60;
  options.training.optimizer.warmup_steps = 10;
  options.training.pairs_per_step = 32;
  CircuitTrainer trainer(model.config, options.training, model.task);
  const CircuitLosses first = trainer.Step();
  CircuitLosses last;
  for (int i = 1; i < 60; ++i) last = trainer.Step();
  EXPECT_LT(last.behaviour, 0.4 * first.behaviour);
  EXPECT_LT(last.interchange, 0.5 * first.interchange);
  EXPECT_LT(last.strict, 0.6 * first.strict);
}

// The engine's side: logit differences of a written checkpoint under its own patching.
class EngineTest : public testing::TestWithParam<const char*> {
 protected:
  EngineTest() : made_(Untrained(Options(GetParam(), 5))), space_(SpaceOf(made_.config)) {
    const std::filesystem::path directory =
        testing::TempDir() + "trained-" + GetParam() + "-" + std::to_string(::getpid());
    std::filesystem::remove_all(directory);
    EXPECT_THAT(WriteTrained(directory.string(), made_), IsOk());
    model_ = ValueOrFail(engine::Model::Load(directory.string()));
    std::filesystem::remove_all(directory);
    for (size_t i = 0; i < 2; ++i) pairs_.push_back(made_.task.pairs[i * (made_.task.pairs.size() - 1)]);
    runs_ = std::make_unique<PatchingRuns>(made_.config, made_.weights, made_.task, pairs_);
  }

  // Of the first two answers' logits, in the engine.
  double Measure(const ExamplePair& pair, const engine::InterventionSet& set) {
    engine::DirectExecutor executor(model_);
    engine::RunContext context{executor, {}, {}};
    engine::PlanCompiler compiler(model_->config());
    Violations violations;
    compiler.Add({pair.base.prompt, {}}, set, {}, violations.root());
    EXPECT_TRUE(violations.empty());
    const auto plans = ValueOrFail(engine::RunSourcesAndFinish(context, compiler));
    engine::MetricOptions metrics;
    metrics.refusal_token_ids = made_.task.answers[0];
    metrics.compliance_token_ids = made_.task.answers[1];
    return *ValueOrFail(engine::RunWithPatch(context, {pair.base.prompt, {}}, plans.front(), metrics, {}))
                .patched.logit_difference;
  }

  static double Difference(const PatchingRuns::Answers& answers, size_t row) {
    const float* logits =
        answers.logits.data_ptr<float>() + static_cast<int64_t>(row) * answers.logits.size(1);
    return double{logits[0]} - double{logits[1]};
  }

  engine::Intervention PathOf(Edge edge, const ExamplePair& pair) const;

  TrainedModel made_;
  EdgeSpace space_;
  std::shared_ptr<const engine::Model> model_;
  std::vector<ExamplePair> pairs_;
  std::unique_ptr<PatchingRuns> runs_;
};
INSTANTIATE_TEST_SUITE_P(Tasks, EngineTest, testing::ValuesIn(kTasks),
                         [](const auto& info) { return std::string(info.param); });

engine::Intervention EngineTest::PathOf(Edge edge, const ExamplePair& pair) const {
  const engine::ModelConfig& config = model_->config();
  const engine::Sender sender = engine::Senders(config)[static_cast<size_t>(edge.sender)];
  const engine::Receiver receiver = engine::Receivers(config)[static_cast<size_t>(edge.receiver)];
  engine::ActivationSource source;
  source.origin = engine::TokenizedPrompt{pair.source.prompt, {}};
  engine::PathPatch path{engine::SiteOf(sender), std::nullopt, source};
  if (sender.kind == engine::Sender::Kind::kHead) path.sender_head = sender.head;
  engine::Intervention intervention{engine::SiteOf(receiver, config), {}, path};
  const bool has_head =
      receiver.kind != engine::Receiver::Kind::kMlp && receiver.kind != engine::Receiver::Kind::kFinal;
  if (has_head) intervention.selector.heads = {receiver.head};
  return intervention;
}

TEST_P(EngineTest, NumbersSendersAndReceiversAsTheEngineDoes) {
  const std::vector<engine::Sender> senders = engine::Senders(model_->config());
  const std::vector<engine::Receiver> receivers = engine::Receivers(model_->config());
  ASSERT_EQ(static_cast<int>(senders.size()), space_.sender_count());
  ASSERT_EQ(static_cast<int>(receivers.size()), space_.receiver_count());
  for (int i = 0; i < space_.sender_count(); ++i) {
    EXPECT_EQ(engine::NameOf(senders[static_cast<size_t>(i)]), space_.SenderName(i));
  }
  for (int i = 0; i < space_.receiver_count(); ++i) {
    // truth.json says "L2.mlp" of what the engine calls "L2.mlp_in".
    EXPECT_THAT(engine::NameOf(receivers[static_cast<size_t>(i)]),
                testing::StartsWith(space_.ReceiverName(i)));
    EXPECT_EQ(engine::SenderCount(receivers[static_cast<size_t>(i)], model_->config()), space_.VisibleTo(i));
  }
}

TEST_P(EngineTest, AnswersAsTheTrainersPassDoes) {
  for (size_t i = 0; i < pairs_.size(); ++i) {
    EXPECT_NEAR(Measure(pairs_[i], {}), Difference(runs_->plain(), i), 1e-4);
  }
}

TEST_P(EngineTest, PatchesEveryEdgeAsTheTrainersPassDoes) {
  for (size_t e = 0; e < space_.edges().size(); e += 3) {
    const Edge edge = space_.edges()[e];
    const PatchingRuns::Answers patched = runs_->Patched(Only(space_, {edge}));
    for (size_t i = 0; i < pairs_.size(); ++i) {
      EXPECT_NEAR(Measure(pairs_[i], {PathOf(edge, pairs_[i])}), Difference(patched, i), 1e-4)
          << space_.EdgeName(edge);
    }
  }
}

TEST_P(EngineTest, PatchesHeadsAndMlpsAsTheTrainersPassDoes) {
  const EdgeDraws draws(space_, made_.task.circuit);
  for (int layer = 0; layer < space_.layers(); ++layer) {
    for (int head = 0; head <= space_.heads(); ++head) {
      const bool is_mlp = head == space_.heads();
      const PatchingRuns::Answers patched = runs_->Patched(draws.AllOf(space_.Head(layer, head)));
      for (size_t i = 0; i < pairs_.size(); ++i) {
        engine::Replacement replacement;
        replacement.source.origin = engine::TokenizedPrompt{pairs_[i].source.prompt, {}};
        engine::Selector selector;
        if (!is_mlp) selector.heads = {head};
        const HookSite site = {is_mlp ? HookPoint::kMlpOut : HookPoint::kZ, layer};
        EXPECT_NEAR(Measure(pairs_[i], {{site, selector, replacement}}), Difference(patched, i), 1e-4)
            << layer << " " << head;
      }
    }
  }
}

}  // namespace
}  // namespace mechinterp::make_trained
