// Gradients against torch autograd's in double precision, against differences of the plain model,
// and against themselves in other company.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "nlohmann/json.hpp"
#include "services/engine/forward/executor.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/operations/cached_run.h"
#include "tests/services/engine/fixture.h"
#include "tests/services/engine/naive_llama.h"
#include "tests/services/engine/random_checkpoint.h"
#include "tests/services/engine/random_requests.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

// logsumexp of one set of tokens less that of another, and its gradient, in double precision.
struct LogitDifference {
  std::vector<TokenId> positive, negative;

  template <typename Row>
  static double LogSumExp(const Row& logits, const std::vector<TokenId>& ids) {
    double sum = 0;
    for (TokenId id : ids) sum += std::exp(double{logits[id]});
    return std::log(sum);
  }
  template <typename Row>
  double operator()(const Row& logits) const {
    return LogSumExp(logits, positive) - LogSumExp(logits, negative);
  }
  void Gradient(absl::Span<const float> logits, absl::Span<float> gradient) const {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    for (TokenId id : positive) {
      gradient[id] += static_cast<float>(std::exp(logits[id] - LogSumExp(logits, positive)));
    }
    for (TokenId id : negative) {
      gradient[id] -= static_cast<float>(std::exp(logits[id] - LogSumExp(logits, negative)));
    }
  }
};

std::vector<int> Upto(int count) {
  std::vector<int> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// All gradients of a prompt of this length.
std::shared_ptr<GradientPlan> PlanForAll(const ModelConfig& config, int length,
                                         const LogitDifference& metric) {
  auto plan = std::make_shared<GradientPlan>();
  plan->metric = [metric](absl::Span<const float> logits, absl::Span<float> gradient) {
    metric.Gradient(logits, gradient);
  };
  for (const HookSite& site : AllSites(config)) plan->captures[site] = {site, Upto(length)};
  return plan;
}

struct FixtureCase {
  const char* name;
  bool by_libtorch;
};

class FixtureGradients : public testing::TestWithParam<FixtureCase> {
 protected:
  FixtureGradients() {
    LoadOptions options;
    options.compute_type = NumberFormat::kFloat32;
    options.head = kUnquantized;
    options.device.by_libtorch = GetParam().by_libtorch;
    const std::string directory = TestData(GetParam().name);
    model_ = *Model::Load(directory, options);
    const std::string reference = TestData(std::string("attribution/") + GetParam().name);
    expected_ = *SafetensorsFile::Open(reference + ".safetensors");
    document_ = json::parse(std::ifstream(reference + ".json"));
    metric_ = {document_["refusal_token_ids"].get<std::vector<TokenId>>(),
               document_["compliance_token_ids"].get<std::vector<TokenId>>()};
  }

  Segment Run(BackwardRule rule) {
    Segment segment;
    segment.tokens = document_["clean"].get<std::vector<TokenId>>();
    const auto plan = PlanForAll(model_->config(), segment.length(), metric_);
    plan->runs = {{rule, -1}};
    segment.gradient = plan;
    DirectExecutor executor(model_);
    Segment* const segments[] = {&segment};
    EXPECT_THAT(executor.Run(segments, nullptr), IsOk());
    return segment;
  }
  HostTensor Expected(const std::string& name) { return *ToHostTensor(*expected_->Find(name)); }
  HostTensor Gradient(const Segment& segment, const HookSite& site) {
    return ToPublicShape(site.point, model_->config(), segment.gradients[0].at(site));
  }
  void ExpectNear(const HostTensor& ours, const HostTensor& expected, const std::string& name) {
    double largest = 0;
    for (float value : expected.values) largest = std::max<double>(largest, std::abs(value));
    EXPECT_LT(MaxDifference(ours, expected), 1e-4 * largest) << name;
  }

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const SafetensorsFile> expected_;
  json document_;
  LogitDifference metric_;
};

TEST_P(FixtureGradients, AtEverySite) {
  const Segment segment = Run(BackwardRule::kGradient);
  EXPECT_NEAR(metric_(segment.logits.values), document_["metric_clean"].get<double>(), 1e-4);
  const int last = model_->config().layer_count() - 1;
  int compared = 0;
  for (const HookSite& site : AllSites(model_->config())) {
    const std::string name = "grad/" + SiteName(site);
    if (expected_->Find(name) == nullptr) continue;
    ExpectNear(Gradient(segment, site), Expected(name), name);
    ++compared;
  }
  ExpectNear(Gradient(segment, {HookPoint::kResidPost, last}), Expected("grad/final_input"), "final_input");
  int recorded = 0;
  for (const auto& [name, view] : expected_->tensors()) recorded += name.rfind("grad/", 0) == 0;
  EXPECT_EQ(compared + 1, recorded);
}

TEST_P(FixtureGradients, ByRelPsRules) {
  const Segment segment = Run(BackwardRule::kRelevance);
  ExpectNear(Gradient(segment, {HookPoint::kEmbed, 0}), Expected("relp/grad/hook_embed"), "hook_embed");
}

// Of a readout that is linear in the logits, relevance is neither made nor lost.
TEST_P(FixtureGradients, RelevanceIsConserved) {
  metric_.positive.resize(1);
  metric_.negative.resize(1);
  Segment segment = Run(BackwardRule::kRelevance);
  auto plan = std::make_shared<HookPlan>();
  plan->prompt_length = segment.length();
  for (const HookSite& site : AllSites(model_->config()))
    plan->captures[site] = {site, Upto(segment.length())};
  segment.plan = plan;
  DirectExecutor executor(model_);
  Segment* const segments[] = {&segment};
  ASSERT_THAT(executor.Run(segments, nullptr), IsOk());
  const double metric = metric_(segment.logits.values);
  for (int layer = 0; layer < model_->config().layer_count(); ++layer) {
    for (const HookPoint point : {HookPoint::kResidPre, HookPoint::kResidMid, HookPoint::kResidPost}) {
      const std::vector<float>& values = segment.activations.at({point, layer}).values.values;
      const std::vector<float>& gradient = segment.gradients[0].at({point, layer}).values.values;
      double sum = 0;
      for (size_t i = 0; i < values.size(); ++i) sum += double{values[i]} * gradient[i];
      EXPECT_NEAR(sum, metric, 1e-5 * std::max(1.0, std::abs(metric))) << SiteName({point, layer});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, FixtureGradients,
                         testing::Values(FixtureCase{"llama3-gqa", false}, FixtureCase{"llama3-gqa", true},
                                         FixtureCase{"llama31-rope-scaled", false},
                                         FixtureCase{"llama31-rope-scaled", true}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name + (info.param.by_libtorch ? "_Libtorch" : "_Kernels");
                         });

struct RandomCase {
  unsigned seed;
  bool by_libtorch;
  RandomFamily family;
  std::string name;
};

class RandomGradients : public testing::TestWithParam<RandomCase> {
 protected:
  static LoadOptions Options() {
    LoadOptions options;
    options.device.by_libtorch = GetParam().by_libtorch;
    return options;
  }

  std::shared_ptr<const HookPlan> Plan(const TokenizedPrompt& prompt, const InterventionSet& set) {
    Violations list;
    PlanCompiler compiler(model_->config());
    compiler.Add(prompt, set, {}, list.root());
    EXPECT_TRUE(list.empty());
    return RunSourcesAndFinish(context_, compiler)->front();
  }
  Segment MakeSegment(const TokenizedPrompt& prompt, const InterventionSet& set) {
    Segment segment;
    segment.tokens = prompt.ids;
    segment.plan = Plan(prompt, set);
    segment.gradient = PlanForAll(model_->config(), prompt.length(), metric_);
    return segment;
  }
  void Run(absl::Span<Segment* const> segments) { ASSERT_THAT(executor_.Run(segments, nullptr), IsOk()); }

  RandomCheckpoint checkpoint_{GetParam().seed, GetParam().family};
  std::shared_ptr<const Model> model_ = *Model::Load(checkpoint_.directory(), Options());
  NaiveLlama naive_{checkpoint_.directory(), model_->config()};
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
  RandomRequests random_{model_->config(), GetParam().seed + 500};
  LogitDifference metric_{{1, 4}, {2, 3, 7}};
};

// Whether the segments' edits make a head read an input of its own in this layer.
bool HasOwnInputs(const InterventionSet& set, int layer) {
  return std::any_of(set.begin(), set.end(), [&](const Intervention& intervention) {
    const HookPoint point = intervention.site.point;
    return intervention.site.layer == layer &&
           (point == HookPoint::kQInput || point == HookPoint::kKInput || point == HookPoint::kVInput);
  });
}

// At a site, a step along a random direction changes the plain model's metric as the gradient says.
TEST_P(RandomGradients, AreWhatTheMetricChangesBy) {
  for (int round = 0; round < 4; ++round) {
    const TokenizedPrompt prompt = random_.Prompt(3 + random_.Int(5));
    const InterventionSet set = random_.Interventions(prompt, round);
    Segment segment = MakeSegment(prompt, set);
    Segment* const segments[] = {&segment};
    Run(segments);
    for (const HookSite& site : AllSites(model_->config())) {
      const bool is_of_norm = site.point == HookPoint::kLn1Scale || site.point == HookPoint::kLn1Normalized;
      if (is_of_norm && HasOwnInputs(set, site.layer)) continue;  // the stream's alone is told
      const SiteShape shape = ShapeOf(site.point, model_->config());
      const int width = shape.width == kWidthIsKeys ? prompt.length() : shape.width;
      const int position =
          PartOf(site.point) == PassPart::kHead ? prompt.length() - 1 : random_.Int(prompt.length());
      const int head = random_.Int(shape.heads);
      Intervention step;
      step.site = site;
      step.selector.positions.indices = {position};
      if (shape.has_head_axis) step.selector.heads = {head};
      HostTensor direction{{width}, std::vector<float>(width)};
      for (float& value : direction.values) value = (random_.Int(2001) - 1000) / 1000.0f;
      if (shape.width == kWidthIsKeys) {  // what is hidden stays hidden
        const int window = model_->config().layers[site.layer].window;
        const int first = window == 0 ? 0 : std::max(0, position + 1 - window);
        std::fill_n(direction.values.begin(), first, 0.0f);
        std::fill(direction.values.begin() + position + 1, direction.values.end(), 0.0f);
      }
      const auto metric_at = [&](double scale) {
        InterventionSet with_step = set;
        step.edit = Addition{direction, scale};
        with_step.push_back(step);
        return metric_(naive_.LastLogits(prompt.ids, with_step));
      };
      constexpr double kStep = 1e-5;
      const double difference = (metric_at(kStep) - metric_at(-kStep)) / (2 * kStep);
      const HostTensor& gradient = segment.gradients[0].at(site).values;
      const int64_t rows = gradient.shape[0],
                    row = PartOf(site.point) == PassPart::kHead ? rows - 1 : position;
      double product = 0, size = 0;
      for (int i = 0; i < width; ++i) {
        const double part =
            double{gradient.values[(row * shape.heads + head) * width + i]} * direction.values[i];
        product += part;
        size += std::abs(part);
      }
      EXPECT_NEAR(product, difference, 2e-4 * size + 1e-6) << SiteName(site) << " in round " << round;
    }
  }
}

void ExpectSameBits(const Segment& a, const Segment& b, const std::string& what) {
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (const auto& [site, gradient] : a.gradients[0]) {
    EXPECT_EQ(gradient.values.values, b.gradients[0].at(site).values.values)
        << what << ": " << SiteName(site);
  }
}

TEST_P(RandomGradients, AreTheSameInAnyCompany) {
  if (GetParam().by_libtorch) GTEST_SKIP() << "libtorch promises no bits";
  std::vector<TokenizedPrompt> prompts;
  std::vector<InterventionSet> sets;
  std::vector<Segment> together, alone, again;
  for (int i = 0; i < 4; ++i) {
    prompts.push_back(random_.Prompt(3 + random_.Int(8)));
    sets.push_back(random_.Interventions(prompts[i], i));
    together.push_back(MakeSegment(prompts[i], sets[i]));
    alone.push_back(MakeSegment(prompts[i], sets[i]));
    again.push_back(MakeSegment(prompts[i], sets[i]));
    auto plan = std::make_shared<GradientPlan>(*again[i].gradient);
    plan->keeps_all_layers = false;
    again[i].gradient = plan;
  }
  Segment plain;
  plain.tokens = prompts[0].ids;
  plain.logits_rows = LogitsRows::kLast;
  std::vector<Segment*> all = {&plain};
  for (Segment& segment : together) all.push_back(&segment);
  Run(all);
  for (int i = 0; i < 4; ++i) {
    Segment* const one[] = {&alone[i]};
    Run(one);
    ExpectSameBits(together[i], alone[i], "alone");
    Segment* const same[] = {&again[i]};
    const int threads = kernels::ThreadCount();
    kernels::SetThreadCount(threads == 1 ? 3 : 1);
    Run(same);
    kernels::SetThreadCount(threads);
    ExpectSameBits(together[i], again[i], "layer by layer, with other threads");
  }
}

const RandomFamily kLlama;
const RandomFamily kBiased{"LlamaForCausalLM", true, 0, "null", 64};
const RandomFamily kMistral{"MistralForCausalLM", false, 4, "null", 64};
const RandomFamily kQwen3{"Qwen3ForCausalLM", false, 0, "null", 64};

INSTANTIATE_TEST_SUITE_P(
    Models, RandomGradients,
    testing::Values(RandomCase{1, false, kLlama, "Llama"}, RandomCase{2, false, kLlama, "Llama2"},
                    RandomCase{3, false, kBiased, "Biased"}, RandomCase{4, false, kMistral, "Mistral"},
                    RandomCase{5, false, kQwen3, "Qwen3"}, RandomCase{1, true, kLlama, "LlamaByLibtorch"},
                    RandomCase{4, true, kMistral, "MistralByLibtorch"},
                    RandomCase{5, true, kQwen3, "Qwen3ByLibtorch"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mechinterp::engine
