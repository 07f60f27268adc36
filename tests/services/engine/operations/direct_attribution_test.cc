// Direct logit attribution against the reference's, and its sum against the logits.

#include "services/engine/operations/direct_attribution.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "services/engine/operations/attribution.h"
#include "tests/services/engine/operations/readout_fixture.h"

namespace mechinterp::engine {
namespace {

using testing::Optional;
using testing::SizeIs;

class DirectAttributionTest : public testing::TestWithParam<ServedFixture> {
 protected:
  static DirectAttributionRequest RequestFor(const TokenizedPrompt& prompt) {
    DirectAttributionRequest request;
    request.prompt = prompt;
    request.positions = {prompt.length() - 1};
    request.refusal_token_ids = {5, 9, 11};
    request.compliance_token_ids = {20, 31};
    return request;
  }
  std::vector<DirectAttribution> RunAll(const DirectAttributionRequest& request) {
    std::vector<DirectAttribution> attributions;
    EXPECT_THAT(AttributeDirectly(served_.context(), request,
                                  [&](const DirectAttribution& attribution) {
                                    attributions.push_back(attribution);
                                    return absl::OkStatus();
                                  }),
                IsOk());
    EXPECT_EQ(attributions.size(), request.positions.size());
    return attributions;
  }
  DirectAttribution Run(const DirectAttributionRequest& request) { return RunAll(request).front(); }
  // Of the run's own logits, at each position that is asked for.
  std::vector<double> DifferencesOf(const DirectAttributionRequest& request) {
    const HostTensor logits = served_.LogitsOf(request.prompt, request.plan);
    std::vector<double> differences;
    for (const int position : request.positions) {
      const float* row = logits.values.data() + position * logits.shape[1];
      double refusal = 0, compliance = 0;
      for (TokenId id : request.refusal_token_ids) refusal += row[id];
      for (TokenId id : request.compliance_token_ids) compliance += row[id];
      differences.push_back(refusal / static_cast<double>(request.refusal_token_ids.size()) -
                            compliance / static_cast<double>(request.compliance_token_ids.size()));
    }
    return differences;
  }
  double DifferenceOf(const DirectAttributionRequest& request) { return DifferencesOf(request).front(); }
  // How far sums may lie from the logits: sums of fp32 products, or of rounded operands.
  double Tolerance(const DirectAttribution& attribution) const {
    double size = 0;
    for (double term : attribution.senders) size += std::abs(term);
    return size * (GetParam().compute_type == NumberFormat::kFloat32 ? 1e-5 : 1e-2);
  }
  void ExpectSumsAreTheDifferences(const DirectAttributionRequest& request) {
    const std::vector<double> differences = DifferencesOf(request);
    const std::vector<DirectAttribution> attributions = RunAll(request);
    for (size_t i = 0; i < attributions.size(); ++i) {
      EXPECT_EQ(attributions[i].position, request.positions[i]);
      EXPECT_NEAR(attributions[i].logit_difference, differences[i], 1e-4);
      EXPECT_NEAR(attributions[i].Sum(), attributions[i].logit_difference, Tolerance(attributions[i]));
    }
  }
  size_t IndexOf(const Sender& sender) const {
    const std::vector<Sender> senders = Senders(served_.config());
    return static_cast<size_t>(std::find(senders.begin(), senders.end(), sender) - senders.begin());
  }
  Intervention At(HookPoint point, int layer, Edit edit) { return {{point, layer}, {}, std::move(edit)}; }
  HostTensor Direction() const {
    HostTensor direction{{served_.config().d_model}, {}};
    for (int i = 0; i < served_.config().d_model; ++i) {
      direction.values.push_back(static_cast<float>(std::sin(i + 1)));
    }
    return direction;
  }

  ReadoutFixture served_{GetParam()};
  const TokenizedPrompt prompt_ = PromptOfLength(12);
};

using DirectAttributionReference = DirectAttributionTest;
using DirectAttributionOfAnyFormat = DirectAttributionTest;
using DirectAttributions = DirectAttributionTest;

TEST_P(DirectAttributionReference, IsTheReferences) {
  const ReadoutReference reference(GetParam().name);
  DirectAttributionRequest request = RequestFor({reference.Ids("clean"), {}});
  request.refusal_token_ids = reference.Ids("refusal_token_ids");
  request.compliance_token_ids = reference.Ids("compliance_token_ids");
  const DirectAttribution attribution = Run(request);
  const nlohmann::json& expected = reference.document["direct_logit_attribution"];
  const std::vector<Sender> senders = Senders(served_.config());
  ASSERT_EQ(senders.size(), expected.size());
  double largest = 0;
  for (const auto& value : expected) largest = std::max(largest, std::abs(value.get<double>()));
  for (size_t i = 0; i < senders.size(); ++i) {
    EXPECT_NEAR(attribution.senders[i], expected.at(NameOf(senders[i])).get<double>(), 1e-4 * largest)
        << NameOf(senders[i]);
  }
  EXPECT_EQ(attribution.biases, std::nullopt);
}

TEST_P(DirectAttributionOfAnyFormat, AddsUpToTheMeanLogitDifference) {
  DirectAttributionRequest request = RequestFor(prompt_);
  request.positions = {0, 5, 11};
  ExpectSumsAreTheDifferences(request);
}

// What a sender writes is told as edited, and a linear edit further on is taken through.
TEST_P(DirectAttributionOfAnyFormat, AddsUpWithEditsInForce) {
  Intervention one_head = At(HookPoint::kZ, 1, Zeroing{});
  one_head.selector.heads = {2};
  Intervention halved = At(HookPoint::kResult, 1, Scaling{0.5});
  halved.selector.heads = {1};
  InterventionSet edits = {one_head, halved, At(HookPoint::kMlpOut, 0, NoiseAddition{0.3, 7}),
                           At(HookPoint::kAttnOut, 0, Scaling{-2}),
                           At(HookPoint::kLnFinalScale, 0, Scaling{1.5})};
  for (int layer = 0; layer < served_.config().layer_count(); ++layer) {
    edits.push_back(At(HookPoint::kResidPost, layer, ProjectionRemoval{Direction()}));
  }
  DirectAttributionRequest request = RequestFor(prompt_);
  const DirectAttribution plain = Run(request);
  request.plan = served_.PlanOf(prompt_, edits);
  ExpectSumsAreTheDifferences(request);
  const DirectAttribution edited = Run(request);
  EXPECT_EQ(edited.senders[IndexOf({Sender::Kind::kHead, 1, 2})], 0);
  EXPECT_GT(std::abs(edited.logit_difference - plain.logit_difference), Tolerance(plain));
}

// A head writes its hook_result, as an MLP its hook_mlp_out: what is put there is its own.
TEST_P(DirectAttributionOfAnyFormat, CountWhatIsPutInAHeadsResult) {
  const auto of_head = [this](Edit edit) {
    Intervention intervention = At(HookPoint::kResult, 1, std::move(edit));
    intervention.selector.heads = {2};
    return intervention;
  };
  DirectAttributionRequest request = RequestFor(prompt_);
  const DirectAttribution plain = Run(request);
  const HostTensor written{{1, served_.config().d_model}, Direction().values};
  request.plan = served_.PlanOf(prompt_, {of_head(Zeroing{}), of_head(Addition{written, 4})});
  ExpectSumsAreTheDifferences(request);
  const size_t head = IndexOf({Sender::Kind::kHead, 1, 2});
  EXPECT_GT(std::abs(Run(request).senders[head]), Tolerance(plain));
}

// No sender wrote what an edit adds to the stream: it is what the sum leaves.
TEST_P(DirectAttributions, LeaveWhatEditsAdd) {
  DirectAttributionRequest request = RequestFor(prompt_);
  const int last = served_.config().layer_count() - 1;
  request.plan = served_.PlanOf(prompt_, {At(HookPoint::kResidPost, last, Addition{Direction(), 1})});
  const DirectAttribution attribution = Run(request);
  EXPECT_NEAR(attribution.logit_difference, DifferenceOf(request), 1e-4);
  // The same, with the vector in the place of what the MLP before it wrote: its term is that of
  // the sum, the vector's alone what is more.
  const HookSite out{HookPoint::kMlpOut, last};
  HostTensor both{{prompt_.length(), served_.config().d_model}, served_.ActivationsOf(prompt_, out)};
  for (size_t i = 0; i < both.values.size(); ++i) {
    both.values[i] += Direction().values[i % Direction().values.size()];
  }
  request.plan = served_.PlanOf(prompt_, {At(out.point, last, Replacement{{both, {}, {}, {}}})});
  const DirectAttribution in_mlp = Run(request);
  const size_t mlp = IndexOf({Sender::Kind::kMlp, last, 0});
  EXPECT_NEAR(attribution.logit_difference - attribution.Sum(),
              in_mlp.senders[mlp] - attribution.senders[mlp], 1e-4);
  EXPECT_GT(std::abs(attribution.logit_difference - attribution.Sum()), 1e-2);
}

// All of a layer's neurons are its MLP's term; but for the bias, which only the MLP has.
TEST_P(DirectAttributions, NeuronsArePartsOfTheirMlp) {
  DirectAttributionRequest request = RequestFor(prompt_);
  const int layers = served_.config().layer_count(), neurons = served_.config().d_ff;
  request.neuron_count = layers * neurons + 1;
  const DirectAttribution all = Run(request);
  ASSERT_THAT(all.neurons, SizeIs(layers * neurons));
  EXPECT_TRUE(std::is_sorted(all.neurons.begin(), all.neurons.end(), [](const auto& a, const auto& b) {
    return std::abs(a.value) > std::abs(b.value);
  }));
  std::vector<double> sums(layers);
  for (const NeuronContribution& neuron : all.neurons) sums[neuron.layer] += neuron.value;
  for (int layer = 0; layer < layers; ++layer) {
    const double without = all.senders[IndexOf({Sender::Kind::kMlp, layer, 0})] - sums[layer];
    EXPECT_EQ(std::abs(without) > 1e-4, served_.config().layers[layer].mlp_bias) << without;
  }
  request.neuron_count = 7;
  const DirectAttribution largest = Run(request);
  ASSERT_THAT(largest.neurons, SizeIs(7));
  for (int i = 0; i < 7; ++i) {
    EXPECT_EQ(largest.neurons[i].neuron, all.neurons[i].neuron);
    EXPECT_EQ(largest.neurons[i].value, all.neurons[i].value);
  }
}

// A neuron's term is what the difference loses where the neuron's part of the last stream is
// taken away and the norm's scale is kept.
TEST_P(DirectAttributions, ANeuronsTermIsWhatItAddsAtAFixedScale) {
  DirectAttributionRequest request = RequestFor(prompt_);
  request.neuron_count = 500;
  const DirectAttribution plain = Run(request);
  const int last = served_.config().layer_count() - 1;
  const auto neuron = std::find_if(plain.neurons.begin(), plain.neurons.end(),
                                   [&](const NeuronContribution& each) { return each.layer == last; });
  ASSERT_NE(neuron, plain.neurons.end());
  const HookSite scale{HookPoint::kLnFinalScale, 0};
  const HostTensor scales{{prompt_.length(), 1}, served_.ActivationsOf(prompt_, scale)};
  Intervention away = At(HookPoint::kMlpPost, last, Zeroing{});
  away.selector.dims = {static_cast<int>(neuron->neuron)};
  request.plan = served_.PlanOf(prompt_, {away, At(scale.point, 0, Replacement{{scales, {}, {}, {}}})});
  EXPECT_NEAR(DifferenceOf(request), plain.logit_difference - neuron->value, 1e-4);
}

// Attention's output biases are in no head's term.
TEST_P(DirectAttributions, HaveATermOfBiasesWhereThereAreAny) {
  const DirectAttribution attribution = Run(RequestFor(prompt_));
  const bool has = served_.config().layers[0].attention_output_bias;
  EXPECT_EQ(attribution.biases.has_value(), has);
  if (has) {
    EXPECT_GT(std::abs(*attribution.biases), Tolerance(attribution));
  }
}

// A position is attributed as it is when others are too, patterns edited or not.
TEST_P(DirectAttributions, ReadEachPositionAsAlone) {
  Intervention of_pattern = At(HookPoint::kPattern, 1, Scaling{0.5});
  of_pattern.selector.heads = {3};
  DirectAttributionRequest request = RequestFor(prompt_);
  request.plan = served_.PlanOf(prompt_, {of_pattern});
  request.positions = {3, 4, 11};
  ExpectSumsAreTheDifferences(request);
  const std::vector<DirectAttribution> all = RunAll(request);
  request.positions = {4};
  EXPECT_EQ(Run(request).senders, all[1].senders);
}

TEST_P(DirectAttributions, StopWhereTheirSinkFails) {
  DirectAttributionRequest request = RequestFor(prompt_);
  request.positions = {3, 4, 11};
  int calls = 0;
  EXPECT_TRUE(absl::IsCancelled(AttributeDirectly(served_.context(), request, [&](const DirectAttribution&) {
    return ++calls == 2 ? absl::CancelledError("enough") : absl::OkStatus();
  })));
  EXPECT_EQ(calls, 2);
}

// In one pass with others, direct and not, gradients are those of a pass alone.
TEST_P(DirectAttributions, PassesBackDoNotDependOnTheirCompany) {
  const auto run = [&](std::vector<std::pair<int, BackwardRule>> company) {
    std::vector<Segment> segments(company.size());
    std::vector<Segment*> pointers;
    for (size_t i = 0; i < company.size(); ++i) {
      auto plan = std::make_shared<GradientPlan>();
      plan->runs = {{company[i].second, -1}};
      plan->metric = [](absl::Span<const float>, absl::Span<float> gradient) {
        std::fill(gradient.begin(), gradient.end(), 0.0f);
        gradient[7] = 1;
      };
      const int last = company[i].first - 1;
      for (const HookSite& site : SenderSites(served_.config())) plan->captures[site] = {site, {last}};
      segments[i].tokens = PromptOfLength(company[i].first).ids;
      segments[i].gradient = std::move(plan);
      pointers.push_back(&segments[i]);
    }
    EXPECT_THAT(served_.context().Run(pointers), IsOk());
    return segments;
  };
  const auto direct = BackwardRule::kDirect;
  const auto together = run({{5, direct}, {9, BackwardRule::kRelevance}, {9, direct}});
  const auto alone = run({{9, direct}});
  for (const HookSite& site : SenderSites(served_.config())) {
    EXPECT_EQ(together[2].gradients[0].at(site).values.values, alone[0].gradients[0].at(site).values.values)
        << SiteName(site);
  }
  // Past the last block nothing but the head is left.
  const HookSite last{HookPoint::kMlpOut, served_.config().layer_count() - 1};
  EXPECT_EQ(together[1].gradients[0].at(last).values.values, alone[0].gradients[0].at(last).values.values);
}

std::string NameOf(const testing::TestParamInfo<ServedFixture>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  if (info.param.quantization.has_value()) name += "_Nf4";
  return name + (info.param.by_libtorch ? "_Libtorch" : "_Kernels");
}

constexpr ServedFixture kSmall{"llama3-gqa"};
INSTANTIATE_TEST_SUITE_P(Fixtures, DirectAttributionReference,
                         testing::Values(kSmall, ServedFixture{"llama3-gqa", true},
                                         ServedFixture{"llama31-rope-scaled"},
                                         ServedFixture{"llama31-rope-scaled", true}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Fixtures, DirectAttributionOfAnyFormat,
                         testing::Values(kSmall, ServedFixture{"llama3-gqa", true},
                                         ServedFixture{"llama-biases"}, ServedFixture{"llama-biases", true},
                                         ServedFixture{"llama3-gqa", false, NumberFormat::kNf4,
                                                       NumberFormat::kBFloat16}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Fixtures, DirectAttributions, testing::Values(kSmall, ServedFixture{"llama-biases"}),
                         NameOf);

}  // namespace
}  // namespace mechinterp::engine
