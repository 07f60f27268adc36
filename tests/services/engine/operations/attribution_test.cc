// Attributions against torch autograd's, and what they are estimates of.

#include "services/engine/operations/attribution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>

#include "nlohmann/json.hpp"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/sweep.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

struct FixtureCase {
  const char* name;
  bool by_libtorch;
};

class AttributionTest : public testing::TestWithParam<FixtureCase> {
 protected:
  AttributionTest() {
    request_.clean.ids = document_["clean"].get<std::vector<TokenId>>();
    request_.source.ids = document_["source"].get<std::vector<TokenId>>();
    request_.tokens.refusal_token_ids = document_["refusal_token_ids"].get<std::vector<TokenId>>();
    request_.tokens.compliance_token_ids = document_["compliance_token_ids"].get<std::vector<TokenId>>();
    request_.steps = document_["ig_steps"].get<int>();
  }

  // Sites of which the reference holds scores of a method.
  std::vector<HookSite> SitesOf(const std::string& method) {
    std::vector<HookSite> sites;
    for (const HookSite& site : AllSites(model_->config())) {
      if (expected_->Find(method + "/" + SiteName(site)) != nullptr) sites.push_back(site);
    }
    return sites;
  }

  void ExpectEdgesAsReference(const std::string& method);
  void ExpectAsReference(const std::string& method) {
    request_.sites = SitesOf(method);
    ASSERT_FALSE(request_.sites.empty());
    const auto attribution = Attribute(context_, request_);
    ASSERT_THAT(attribution, IsOk());
    EXPECT_NEAR(attribution->clean_metric, document_["metric_clean"].get<double>(), 1e-4);
    EXPECT_NEAR(attribution->source_metric, document_["metric_source"].get<double>(), 1e-4);
    for (const HookSite& site : request_.sites) {
      const std::string name = method + "/" + SiteName(site);
      const HostTensor expected = *ToHostTensor(*expected_->Find(name));
      const HostTensor& ours = attribution->scores.at(site);
      ASSERT_EQ(ElementCount(ours.shape), ElementCount(expected.shape)) << name;
      double largest = 0, difference = 0;
      for (size_t i = 0; i < expected.values.size(); ++i) {
        largest = std::max<double>(largest, std::abs(expected.values[i]));
        difference = std::max<double>(difference, std::abs(ours.values[i] - expected.values[i]));
      }
      EXPECT_LT(difference, 1e-4 * largest) << name;
    }
  }

  static std::shared_ptr<const Model> LoadModel() {
    LoadOptions options;
    options.compute_type = NumberFormat::kFloat32;
    options.head = kUnquantized;
    options.device.by_libtorch = GetParam().by_libtorch;
    return *Model::Load(TestData(GetParam().name), options);
  }

  const std::string reference_ = TestData(std::string("attribution/") + GetParam().name);
  std::shared_ptr<const Model> model_ = LoadModel();
  std::shared_ptr<const SafetensorsFile> expected_ = *SafetensorsFile::Open(reference_ + ".safetensors");
  const json document_ = json::parse(std::ifstream(reference_ + ".json"));
  AttributionRequest request_;
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
};

TEST_P(AttributionTest, ByGradients) { ExpectAsReference("atp"); }

TEST_P(AttributionTest, ByIntegratedGradients) {
  request_.method = AttributionMethod::kIntegratedGradients;
  ExpectAsReference("ig5");
}

TEST_P(AttributionTest, ByRelevance) {
  request_.method = AttributionMethod::kRelevance;
  ExpectAsReference("relp");
}

TEST_P(AttributionTest, WithTheSoftmaxComputedAnew) {
  request_.exact_softmax = true;
  ExpectAsReference("qkfix");
}

// All edges, in the reference's order, whose names ours must be.
void AttributionTest::ExpectEdgesAsReference(const std::string& method) {
  request_.edges = true;
  const auto attribution = Attribute(context_, request_);
  ASSERT_THAT(attribution, IsOk());
  const std::vector<Sender> senders = Senders(model_->config());
  const std::vector<Receiver> receivers = Receivers(model_->config());
  std::map<std::string, double> ours;
  for (size_t r = 0; r < receivers.size(); ++r) {
    for (size_t s = 0; s < attribution->edges[r].size(); ++s) {
      ours[NameOf(senders[s]) + "->" + NameOf(receivers[r])] = attribution->edges[r][s];
    }
  }
  const auto names = document_["edges"].get<std::vector<std::string>>();
  const HostTensor expected = *ToHostTensor(*expected_->Find(method));
  ASSERT_EQ(ours.size(), names.size());
  double largest = 0;
  for (float value : expected.values) largest = std::max<double>(largest, std::abs(value));
  for (size_t i = 0; i < names.size(); ++i) {
    ASSERT_TRUE(ours.contains(names[i])) << names[i];
    EXPECT_NEAR(ours.at(names[i]), expected.values[i], 1e-4 * largest) << names[i];
  }
}

TEST_P(AttributionTest, OfEdges) { ExpectEdgesAsReference("eap"); }

TEST_P(AttributionTest, OfEdgesByIntegratedGradients) {
  request_.method = AttributionMethod::kIntegratedGradients;
  ExpectEdgesAsReference("eap_ig5");
}

// What the reference found when one receiver's input alone saw its sender's source value.
TEST_P(AttributionTest, ExactPaths) {
  const ModelConfig& config = model_->config();
  std::map<std::string, Sender> senders;
  std::map<std::string, Receiver> receivers;
  for (const Sender& sender : Senders(config)) senders[NameOf(sender)] = sender;
  for (const Receiver& receiver : Receivers(config)) receivers[NameOf(receiver)] = receiver;
  PlanCompiler compiler(config);
  Violations violations;
  std::vector<double> expected;
  for (const json& path : document_["paths"]) {
    const auto edge = path["edge"].get<std::string>();
    const size_t arrow = edge.find("->");
    const Sender& sender = senders.at(edge.substr(0, arrow));
    const Receiver& receiver = receivers.at(edge.substr(arrow + 2));
    Intervention intervention;
    intervention.site = SiteOf(receiver, config);
    if (ShapeOf(intervention.site.point, config).has_head_axis) intervention.selector.heads = {receiver.head};
    PathPatch patch{SiteOf(sender), std::nullopt, {request_.source, {}, {}, {}}};
    if (sender.kind == Sender::Kind::kHead) patch.sender_head = sender.head;
    intervention.edit = patch;
    compiler.Add(request_.clean, {intervention}, {}, violations.root());
    expected.push_back(path["metric"].get<double>());
  }
  ASSERT_TRUE(violations.empty());
  std::vector<double> metrics(expected.size());
  const auto plans = RunSourcesAndFinish(context_, compiler);
  ASSERT_THAT(plans, IsOk());
  const SweepSink sink{[](const SweepBaselines&) { return absl::OkStatus(); },
                       [&](const SweepResult& result) {
                         metrics[result.set_index] = *result.metrics.logit_difference;
                         return absl::OkStatus();
                       }};
  ASSERT_THAT(RunPatchSweep(context_, {request_.clean, *plans, request_.tokens, std::nullopt}, sink), IsOk());
  double largest = 0;
  for (double metric : expected) largest = std::max(largest, std::abs(metric));
  ASSERT_EQ(expected.size(), 40u);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(metrics[i], expected[i], 1e-4 * largest) << document_["paths"][i]["edge"];
  }
}

// Of whole openings, whose later tokens are read at positions of their own: as pushing the activation a
// little to either side shows.
TEST_P(AttributionTest, GradientsOfOpeningsAreDifferences) {
  request_.metric = MetricKind::kOpenings;
  request_.tokens = {};
  request_.tokens.refusal_openings = {{5, 9, 11}, {7}, {5, 2}};
  request_.tokens.compliance_openings = {{20, 31}};
  request_.sites = {
      {HookPoint::kResidPre, 1}, {HookPoint::kZ, 2}, {HookPoint::kK, 0}, {HookPoint::kMlpPost, 1}};
  request_.with_gradients = true;
  const auto attribution = Attribute(context_, request_);
  ASSERT_THAT(attribution, IsOk());

  const ModelConfig& config = model_->config();
  constexpr double kStep = 0.02;
  PlanCompiler compiler(config);
  Violations violations;
  std::vector<double> expected;
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const HookSite& site : request_.sites) {
    const SiteShape shape = ShapeOf(site.point, config);
    for (const int position : {0, request_.clean.length() - 1}) {
      Intervention push{site, {}, {}};
      push.selector.positions.indices = {position};
      push.selector.scope = InterventionScope::kPrompt;
      HostTensor direction{{shape.heads, shape.width}, std::vector<float>(shape.size())};
      if (!shape.has_head_axis) direction.shape = {shape.size()};
      double sum = 0;
      const float* gradient = attribution->gradients.at(site).values.values.data() + position * shape.size();
      for (int64_t i = 0; i < shape.size(); ++i) {
        direction.values[i] = normal(random);
        sum += double{direction.values[i]} * gradient[i];
      }
      expected.push_back(sum);
      for (const double scale : {kStep, -kStep}) {
        push.edit = Addition{direction, scale};
        compiler.Add(request_.clean, {push}, {}, violations.root());
      }
    }
  }
  ASSERT_TRUE(violations.empty());
  const auto plans = RunSourcesAndFinish(context_, compiler);
  ASSERT_THAT(plans, IsOk());
  std::vector<double> metrics(plans->size());
  double clean = 0;
  const SweepSink sink{[&](const SweepBaselines& baselines) {
                         clean = OpeningsMetric(baselines.clean);
                         return absl::OkStatus();
                       },
                       [&](const SweepResult& result) {
                         metrics[result.set_index] = OpeningsMetric(result.metrics);
                         return absl::OkStatus();
                       }};
  ASSERT_THAT(RunPatchSweep(context_, {request_.clean, *plans, request_.tokens, std::nullopt}, sink), IsOk());
  EXPECT_NEAR(attribution->clean_metric, clean, 1e-4);
  double largest = 0;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  ASSERT_GT(largest, 0.01);
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = (metrics[2 * i] - metrics[2 * i + 1]) / (2 * kStep);
    EXPECT_NEAR(difference, expected[i], 0.01 * largest) << SiteName(request_.sites[i / 2]);
  }
}

// Without a layer's contributions there is no way back through it; the mean of absolute scores
// over L - 1 is at least, and where no paths cancel as large as, the plain score's.
TEST_P(AttributionTest, ByGradDrop) {
  request_.sites = SitesOf("atp");
  const auto plain = Attribute(context_, request_);
  request_.method = AttributionMethod::kGradDrop;
  const auto dropped = Attribute(context_, request_);
  ASSERT_THAT(plain, IsOk());
  ASSERT_THAT(dropped, IsOk());
  // The last layer's MLP reaches the logits along the stream alone: every run but the one that
  // drops it is the plain one.
  const HookSite last{HookPoint::kMlpOut, model_->config().layer_count() - 1};
  for (size_t i = 0; i < plain->scores.at(last).values.size(); ++i) {
    const float score = std::abs(plain->scores.at(last).values[i]);
    EXPECT_NEAR(dropped->scores.at(last).values[i], score, 1e-4 * score + 1e-7);
  }
}

TEST_P(AttributionTest, OfAPromptToItselfIsZero) {
  request_.source = request_.clean;
  request_.sites = SitesOf("atp");
  const auto attribution = Attribute(context_, request_);
  ASSERT_THAT(attribution, IsOk());
  for (const auto& [site, scores] : attribution->scores) EXPECT_THAT(scores.values, testing::Each(0.0f));
}

// A longer source is aligned from its end.
TEST_P(AttributionTest, AlignsFromTheEnd) {
  request_.sites = {{HookPoint::kEmbed, 0}};
  const auto same = Attribute(context_, request_);
  request_.source.ids.insert(request_.source.ids.begin(), 17);
  const auto longer = Attribute(context_, request_);
  ASSERT_THAT(same, IsOk());
  ASSERT_THAT(longer, IsOk());
  EXPECT_EQ(same->scores.at({HookPoint::kEmbed, 0}).values, longer->scores.at({HookPoint::kEmbed, 0}).values);
  request_.source.ids.erase(request_.source.ids.begin(), request_.source.ids.begin() + 3);
  const auto shorter = Attribute(context_, request_);
  ASSERT_THAT(shorter, IsOk());
  const std::vector<float>& values = shorter->scores.at({HookPoint::kEmbed, 0}).values;
  EXPECT_THAT(std::vector<float>(values.begin(), values.begin() + 2), testing::Each(0.0f));
  EXPECT_TRUE(std::equal(values.begin() + 2, values.end(),
                         same->scores.at({HookPoint::kEmbed, 0}).values.begin() + 2));
}

// The way begins at the embeddings: what they are given there is what enters block 0, and all of the
// metric's change is theirs (completeness; Sundararajan et al. 2017), but for the steps' error.
TEST_P(AttributionTest, IntegratedGradientsOfTheEmbeddingsAreComplete) {
  const HookSite embed{HookPoint::kEmbed, 0}, entering{HookPoint::kResidPre, 0};
  request_.method = AttributionMethod::kIntegratedGradients;
  request_.sites = {embed, entering};
  std::vector<double> errors;
  for (const int steps : {32, 128}) {
    request_.steps = steps;
    const auto attribution = Attribute(context_, request_);
    ASSERT_THAT(attribution, IsOk());
    EXPECT_EQ(attribution->scores.at(embed).values, attribution->scores.at(entering).values);
    const double change = attribution->source_metric - attribution->clean_metric;
    double sum = 0;
    for (const float score : attribution->scores.at(embed).values) sum += score;
    errors.push_back(std::abs(sum - change) / std::abs(change));
  }
  EXPECT_LT(errors[1], 0.02);
  EXPECT_LT(errors[1], errors[0] / 2);

  PlanCompiler compiler(model_->config());
  Violations violations;
  compiler.Add(request_.clean, {{entering, {}, Zeroing{}}}, {}, violations.root());
  ASSERT_TRUE(violations.empty());
  request_.plan = (*RunSourcesAndFinish(context_, compiler))[0];
  const auto cut_off = Attribute(context_, request_);
  ASSERT_THAT(cut_off, IsOk());
  EXPECT_THAT(cut_off->scores.at(embed).values, testing::Each(0.0f));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, AttributionTest,
                         testing::Values(FixtureCase{"llama3-gqa", false}, FixtureCase{"llama3-gqa", true},
                                         FixtureCase{"llama31-rope-scaled", false},
                                         FixtureCase{"llama31-rope-scaled", true}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + (info.param.by_libtorch ? "_Libtorch" : "_Kernels");
                         });

}  // namespace
}  // namespace mechinterp::engine
