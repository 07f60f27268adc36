// The logit lens against the reference's, and against the run's own logits.

#include "services/engine/operations/logit_lens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/services/engine/operations/readout_fixture.h"

namespace mechinterp::engine {
namespace {

using testing::Optional;
using testing::SizeIs;

class LogitLensTest : public testing::TestWithParam<ServedFixture> {
 protected:
  std::vector<LensReading> Read(const LensRequest& request) {
    std::vector<LensReading> readings;
    EXPECT_THAT(RunLogitLens(served_.context(), request,
                             [&](const LensReading& reading) {
                               readings.push_back(reading);
                               return absl::OkStatus();
                             }),
                IsOk());
    return readings;
  }
  LensRequest RequestFor(const TokenizedPrompt& prompt) {
    LensRequest request;
    request.prompt = prompt;
    request.positions.resize(prompt.length());
    std::iota(request.positions.begin(), request.positions.end(), 0);
    request.metrics.refusal_token_ids = {5, 9, 11};
    request.metrics.compliance_token_ids = {20, 31};
    request.metrics.top_token_count = served_.config().vocabulary_size;
    return request;
  }
  // All of a reading's logits, by id.
  std::vector<float> LogitsOf(const LensReading& reading) {
    std::vector<float> logits(served_.config().vocabulary_size, std::nanf(""));
    for (const TokenProbability& token : reading.metrics.top_tokens) {
      logits[token.id] = static_cast<float>(token.logit);
    }
    return logits;
  }
  // That the last site's readings are of these logits [T, V], bit for bit where the CPU computes.
  void ExpectEndsWith(const std::vector<LensReading>& readings, const HostTensor& logits) {
    const int64_t width = logits.shape[1];
    const HookSite last{HookPoint::kResidPost, served_.config().layer_count() - 1};
    int found = 0;
    for (const LensReading& reading : readings) {
      if (!(reading.site == last)) continue;
      const std::vector<float> ours = LogitsOf(reading);
      const float* expected = logits.values.data() + reading.position * width;
      for (int64_t i = 0; i < width; ++i) {
        if (GetParam().by_libtorch) {
          ASSERT_NEAR(ours[i], expected[i], 1e-4);
        } else {
          ASSERT_EQ(ours[i], expected[i]);
        }
      }
      EXPECT_NEAR(*reading.metrics.kl_from_clean, 0, 1e-12);
      ++found;
    }
    EXPECT_EQ(found, logits.shape[0]);
  }

  ReadoutFixture served_{GetParam()};
};

using LogitLensReference = LogitLensTest;
using LogitLensOfAnyFormat = LogitLensTest;

// lens/l is of the stream that leaves layer l.
TEST_P(LogitLensReference, IsTheReferences) {
  const ReadoutReference reference(GetParam().name);
  const std::vector<LensReading> readings = Read(RequestFor({reference.Ids("clean"), {}}));
  const int layers = served_.config().layer_count(), width = served_.config().vocabulary_size;
  ASSERT_THAT(readings, SizeIs((layers + 1) * reference.Ids("clean").size()));
  for (const LensReading& reading : readings) {
    const bool last = reading.site.point == HookPoint::kResidPost;
    if (!last && reading.site.layer == 0) continue;  // of the embedding the reference has none
    const int left = last ? layers - 1 : reading.site.layer - 1;
    const HostTensor expected = *ToHostTensor(*reference.tensors->Find("lens/" + std::to_string(left)));
    double largest = 0, difference = 0;
    for (float value : expected.values) largest = std::max<double>(largest, std::abs(value));
    const std::vector<float> ours = LogitsOf(reading);
    for (int i = 0; i < width; ++i) {
      difference = std::max<double>(
          difference, std::abs(ours[i] - expected.values[reading.position * int64_t{width} + i]));
    }
    EXPECT_LT(difference, 1e-4 * largest) << SiteName(reading.site) << " at " << reading.position;
  }
}

TEST_P(LogitLensOfAnyFormat, EndsWithTheRunsOwnLogits) {
  const TokenizedPrompt prompt = PromptOfLength(15);
  ExpectEndsWith(Read(RequestFor(prompt)), served_.LogitsOf(prompt));
}

// Edits of the stream, and of the head, where every reading has them.
TEST_P(LogitLensOfAnyFormat, HasEditsInForce) {
  const TokenizedPrompt prompt = PromptOfLength(15);
  Intervention of_mlp{{HookPoint::kMlpOut, 1}, {}, Zeroing{}};
  Intervention of_logits{{HookPoint::kLogits, 0}, {}, Scaling{0.5}};
  of_logits.selector.positions.indices = {3, -1};
  LensRequest request = RequestFor(prompt);
  request.plan = served_.PlanOf(prompt, {of_mlp, of_logits});
  const std::vector<LensReading> edited = Read(request);
  ExpectEndsWith(edited, served_.LogitsOf(prompt, request.plan));
  request.plan = served_.PlanOf(prompt, {of_mlp});
  const std::vector<LensReading> of_stream = Read(request);
  for (size_t i = 0; i < edited.size(); ++i) {
    const bool halved = edited[i].position == 3 || edited[i].position == 14;
    EXPECT_FLOAT_EQ(edited[i].target.logit * (halved ? 2 : 1), of_stream[i].target.logit);
  }
}

using LogitLens = LogitLensTest;

TEST_P(LogitLens, ReadsInTheOrderOfPositionsAndOfThePass) {
  LensRequest request = RequestFor(PromptOfLength(9));
  request.positions = {2, 8};
  request.resid_mid = true;
  const std::vector<LensReading> readings = Read(request);
  const std::vector<HookSite> sites = LensSites(served_.config(), true);
  ASSERT_THAT(readings, SizeIs(2 * sites.size()));
  EXPECT_THAT(LensSites(served_.config(), false), SizeIs(served_.config().layer_count() + 1));
  for (size_t i = 0; i < readings.size(); ++i) {
    EXPECT_EQ(readings[i].site, sites[i % sites.size()]);
    EXPECT_EQ(readings[i].position, i < sites.size() ? 2 : 8);
  }
}

// A position is read as it is when others are read too.
TEST_P(LogitLens, ReadsEachPositionAsAlone) {
  LensRequest request = RequestFor(PromptOfLength(15));
  const std::vector<LensReading> all = Read(request);
  request.positions = {6};
  const std::vector<LensReading> alone = Read(request);
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(LogitsOf(alone[i]), LogitsOf(all[6 * alone.size() + i]));
  }
}

TEST_P(LogitLens, MeasuresAsThePlainFormulasDo) {
  LensRequest request = RequestFor(PromptOfLength(9));
  request.positions = {8};
  const std::vector<LensReading> readings = Read(request);
  const std::vector<float> end = LogitsOf(readings.back());
  const auto normalizer = [](const std::vector<float>& logits) {
    double sum = 0;
    for (float logit : logits) sum += std::exp(double{logit});
    return std::log(sum);
  };
  const auto target = static_cast<TokenId>(std::max_element(end.begin(), end.end()) - end.begin());
  for (const LensReading& reading : readings) {
    const std::vector<float> logits = LogitsOf(reading);
    double divergence = 0;
    int64_t rank = 0;
    for (size_t i = 0; i < end.size(); ++i) {
      const double p = end[i] - normalizer(end), q = logits[i] - normalizer(logits);
      divergence += std::exp(p) * (p - q);
      rank += logits[i] > logits[target];
    }
    EXPECT_NEAR(*reading.metrics.kl_from_clean, divergence, 1e-9);
    EXPECT_EQ(reading.target.id, target);
    EXPECT_EQ(reading.target_rank, rank);
    EXPECT_NEAR(reading.target_log_probability, logits[target] - normalizer(logits), 1e-9);
    const double difference = std::log(std::exp(logits[5]) + std::exp(logits[9]) + std::exp(logits[11])) -
                              std::log(std::exp(logits[20]) + std::exp(logits[31]));
    EXPECT_THAT(reading.metrics.logit_difference, Optional(testing::DoubleNear(difference, 1e-5)));
  }
  request.target = 17;
  EXPECT_EQ(Read(request).front().target.id, 17);
}

TEST_P(LogitLens, StopsWhereItsSinkFails) {
  int calls = 0;
  const absl::Status status = RunLogitLens(
      served_.context(), RequestFor(PromptOfLength(9)),
      [&](const LensReading&) { return ++calls == 7 ? absl::CancelledError("enough") : absl::OkStatus(); });
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(calls, 7);
}

std::string NameOf(const testing::TestParamInfo<ServedFixture>& info) {
  std::string name = info.param.name;
  std::replace(name.begin(), name.end(), '-', '_');
  if (info.param.quantization.has_value()) name += "_Nf4";
  return name + (info.param.by_libtorch ? "_Libtorch" : "_Kernels");
}

constexpr ServedFixture kSmall{"llama3-gqa"};
INSTANTIATE_TEST_SUITE_P(Fixtures, LogitLensReference,
                         testing::Values(kSmall, ServedFixture{"llama3-gqa", true},
                                         ServedFixture{"llama31-rope-scaled", false},
                                         ServedFixture{"llama31-rope-scaled", true}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(
    Fixtures, LogitLensOfAnyFormat,
    testing::Values(kSmall, ServedFixture{"llama3-gqa", true}, ServedFixture{"llama-biases"},
                    ServedFixture{"llama3-gqa", false, NumberFormat::kNf4, NumberFormat::kBFloat16}),
    NameOf);
INSTANTIATE_TEST_SUITE_P(Fixtures, LogitLens, testing::Values(kSmall), NameOf);

}  // namespace
}  // namespace mechinterp::engine
