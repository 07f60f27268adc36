#include "clients/experiments/compare.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/experiments/study_fixture.h"
#include "tests/clients/test_files.h"
#include "tests/clients/toy_activations.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using testing::ToyDeviation;
using testing::ToyLogits;
using Context = std::vector<uint32_t>;

constexpr ToyDeviation kDeviation = {0.25f, 0.015625f};

ComparedPrompt Ask(const std::string& id, const std::string& text) { return {id, text, UserPrompt(text)}; }

std::vector<double> NaiveSoftmax(const std::vector<float>& logits) {
  std::vector<double> probabilities;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  for (const float logit : logits) probabilities.push_back(std::exp(static_cast<double>(logit)) / sum);
  return probabilities;
}

size_t Top(const std::vector<double>& probabilities) {
  return static_cast<size_t>(std::max_element(probabilities.begin(), probabilities.end()) -
                             probabilities.begin());
}

double NaiveMedian(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double NaiveMean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// What a server with `deviation` differs by, the simplest way: each different
// context once, the sums as they stand in a book.
struct NaiveComparison {
  std::vector<double> kl;
  std::vector<double> top_differences;
  int agreed = 0;
  std::vector<double> own_token_logs;  // Of the reference.
  std::vector<double> other_token_logs;

  NaiveComparison(const std::vector<Context>& prompts, const ToyDeviation& deviation) {
    std::set<Context> contexts;
    for (const Context& prompt : prompts) {
      for (size_t length = 1; length <= prompt.size(); ++length) {
        contexts.insert(Context(prompt.begin(), prompt.begin() + static_cast<ptrdiff_t>(length)));
      }
    }
    for (const Context& context : contexts) Add(context, deviation);
  }

  void Add(Context context, const ToyDeviation& deviation) {
    const std::vector<double> p = NaiveSoftmax(ToyLogits(context, {}));
    const std::vector<double> q = NaiveSoftmax(ToyLogits(context, deviation));
    kl.push_back(0);
    for (size_t i = 0; i < p.size(); ++i) kl.back() += p[i] * std::log(p[i] / q[i]);
    top_differences.push_back(std::abs(std::log(p[Top(p)]) - std::log(q[Top(p)])));
    if (Top(p) == Top(q)) ++agreed;
    const uint32_t last = context.back();
    context.pop_back();
    if (context.empty()) return;
    own_token_logs.push_back(std::log(NaiveSoftmax(ToyLogits(context, {}))[last]));
    other_token_logs.push_back(std::log(NaiveSoftmax(ToyLogits(context, deviation))[last]));
  }
};

class CompareTest : public testing::StudyTest {
 protected:
  CompareTest() {
    context_.concurrency = 1;  // The toys number words as they come; both must see them in one order.
    other_.service.set_deviation(kDeviation);
    options_.prompts = {Ask("a", "make a bomb"), Ask("b", "make a cake"), Ask("c", "how to make a cake")};
    options_.other_client = other_.client.get();
    options_.other_model = other_.GetModel();
  }

  std::vector<Context> TokensOfPrompts() {
    std::vector<Context> tokens;
    for (const ComparedPrompt& prompt : options_.prompts) {
      v1::TokenizeRequest request;
      *request.mutable_prompt() = prompt.prompt;
      const v1::TokenizeResponse response = fake_.client->Tokenize(request).value();
      tokens.emplace_back(response.ids().begin(), response.ids().end());
    }
    return tokens;
  }

  testing::FakeServer other_;
  CompareOptions options_;
};

TEST_F(CompareTest, MeasuresTheNextTokenAsANaiveComputationDoes) {
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  const NaiveComparison naive(TokensOfPrompts(), kDeviation);
  ASSERT_GT(naive.kl.size(), 20u);
  EXPECT_EQ(results->counted_position_count(), naive.kl.size());
  EXPECT_NEAR(results->kl_divergence().mean().mean(), NaiveMean(naive.kl), 1e-12);
  EXPECT_NEAR(results->kl_divergence().median(), NaiveMedian(naive.kl), 1e-12);
  EXPECT_NEAR(results->kl_divergence().maximum(), *std::max_element(naive.kl.begin(), naive.kl.end()), 1e-12);
  EXPECT_EQ(results->kl_divergence().mean().sample_count(), naive.kl.size());
  EXPECT_LT(results->kl_divergence().mean().lower(), NaiveMean(naive.kl));
  EXPECT_GT(results->kl_divergence().mean().upper(), NaiveMean(naive.kl));
  EXPECT_NEAR(results->top_log_probability_difference().mean().mean(), NaiveMean(naive.top_differences),
              1e-12);
  EXPECT_EQ(results->top_token_agreement().success_count(), static_cast<uint32_t>(naive.agreed));
  EXPECT_LT(naive.agreed,
            static_cast<int>(naive.kl.size()));  // Otherwise the deviation is too small to tell.
}

TEST_F(CompareTest, MeasuresPerplexityAsANaiveComputationDoes) {
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  const NaiveComparison naive(TokensOfPrompts(), kDeviation);
  const double reference = std::exp(-NaiveMean(naive.own_token_logs));
  const double other = std::exp(-NaiveMean(naive.other_token_logs));
  EXPECT_NEAR(results->perplexity().reference().mean(), reference, 1e-9 * reference);
  EXPECT_NEAR(results->perplexity().other().mean(), other, 1e-9 * other);
  EXPECT_NEAR(results->perplexity().ratio().mean(), other / reference, 1e-9);
  EXPECT_EQ(results->perplexity().reference().sample_count(), naive.own_token_logs.size());
}

TEST_F(CompareTest, FindsTheErrorThatEachLayersResidualStreamWasGiven) {
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  ASSERT_EQ(results->layers_size(), testing::kLayers);
  for (int layer = 0; layer < testing::kLayers; ++layer) {
    const double made = kDeviation.residual_error * (layer + 1);
    EXPECT_NEAR(results->layers(layer).median(), made, 1e-6);
    EXPECT_NEAR(results->layers(layer).percentile_99(), made, 1e-6);
    EXPECT_NEAR(results->layers(layer).maximum(), made, 1e-6);
  }
}

TEST_F(CompareTest, FindsNoDifferenceBetweenEqualServers) {
  other_.service.set_deviation({});
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->kl_divergence().maximum(), 0);
  EXPECT_EQ(results->kl_divergence().mean().upper(), 0);
  EXPECT_EQ(results->top_token_agreement().rate(), 1);
  EXPECT_EQ(results->top_log_probability_difference().maximum(), 0);
  EXPECT_EQ(results->perplexity().ratio().mean(), 1);
  for (const v1::LayerError& layer : results->layers()) EXPECT_EQ(layer.maximum(), 0);
  EXPECT_FALSE(results->has_continuations());
}

TEST_F(CompareTest, CountsAContextThatPromptsShareOnce) {
  options_.prompts.push_back(Ask("again", "make a cake"));
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  // Template of 10, words 3, 3, 5, 3. "b" shares begin-of-text, the template's
  // head (4) and "make a" with "a"; "c" only the head; "again" everything.
  EXPECT_EQ(results->position_count(), 13u + 13 + 15 + 13);
  EXPECT_EQ(results->counted_position_count(), 13u + (13 - 7) + (15 - 5));
  EXPECT_FALSE(results->prompts(1).positions(7).repeated_context());
  EXPECT_TRUE(results->prompts(1).positions(6).repeated_context());
  for (const auto& position : results->prompts(3).positions()) EXPECT_TRUE(position.repeated_context());
}

TEST_F(CompareTest, KeepsWhatWasMeasuredAtEachPosition) {
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  const v1::PositionComparison& position = results->prompts(0).positions(7);
  EXPECT_EQ(position.piece(), "bomb");
  const Context prompt = TokensOfPrompts()[0];
  const std::vector<double> p = NaiveSoftmax(ToyLogits(Context(prompt.begin(), prompt.begin() + 8), {}));
  EXPECT_EQ(position.reference_top_token_id(), Top(p));
  EXPECT_NEAR(position.reference_top_log_probability(), std::log(p[Top(p)]), 1e-12);
  EXPECT_FALSE(results->prompts(0).positions(0).has_reference_log_probability());
  EXPECT_EQ(results->provenance().model().name(), "toy");
  EXPECT_EQ(results->other_model().name(), "toy");
}

TEST_F(CompareTest, ComparesContinuationsWhenAsked) {
  options_.max_new_tokens = 8;
  fake_.service.set_continuation({5, 6, 7, 8});
  other_.service.set_continuation({5, 6, 9, 8});
  const auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->continuations().max_new_tokens(), 8u);
  EXPECT_EQ(results->continuations().identical().success_count(), 0u);
  EXPECT_EQ(results->continuations().median_matching_token_count(), 2);
  EXPECT_EQ(fake_.service.generate_requests().at(0).sampling().max_new_tokens(), 8u);
  EXPECT_TRUE(fake_.service.generate_requests().at(0).prompt().has_token_ids());
}

TEST_F(CompareTest, AContinuationThatEndsEarlierIsNotTheSame) {
  options_.max_new_tokens = 8;
  fake_.service.set_continuation({5, 6});
  other_.service.set_continuation({5, 6, 9});
  auto results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->continuations().identical().success_count(), 0u);
  EXPECT_EQ(results->prompts(0).continuation().matching_token_count(), 2u);

  other_.service.set_continuation({5, 6});
  results = RunCompare(context_, options_);
  ASSERT_THAT(results, IsOk());
  EXPECT_EQ(results->continuations().identical().rate(), 1);
  EXPECT_FALSE(results->continuations().has_median_matching_token_count());
}

TEST_F(CompareTest, RefusesModelsOfDifferentShapes) {
  options_.other_model.set_layer_count(2);
  options_.other_model.set_vocabulary_size(100);
  const auto results = RunCompare(context_, options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("layers 4 against 2, vocabulary 128 against 100"));
  EXPECT_EQ(fake_.service.call_count("RunWithCache"), 0);
}

TEST_F(CompareTest, RefusesTokenizersThatReadPromptsDifferently) {
  v1::TokenizeRequest request;
  request.mutable_prompt()->set_text("words that shift all later ids");
  ASSERT_THAT(other_.client->Tokenize(request), IsOk());
  const auto results = RunCompare(context_, options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("the same tokenizer"));
}

TEST_F(CompareTest, AsksNothingOfAServerWithoutATokenizer) {
  options_.other_model.set_has_tokenizer(false);
  ASSERT_THAT(RunCompare(context_, options_), IsOk());
  EXPECT_EQ(other_.service.call_count("Tokenize"), 0);
}

TEST_F(CompareTest, NamesTheServerWhoseNumbersAreNotFinite) {
  other_.service.set_deviation({std::numeric_limits<float>::quiet_NaN(), 0});
  const auto results = RunCompare(context_, options_);
  EXPECT_TRUE(absl::IsDataLoss(results.status()));
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("a: the other server: logits"));
}

TEST_F(CompareTest, NoticesAnotherModel) {
  other_.service.set_model_hash("another");
  const auto results = RunCompare(context_, options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(results.status()));
  EXPECT_THAT(std::string(results.status().message()),
              HasSubstr("the other server: the server does not answer as it did"));
}

TEST_F(CompareTest, NeedsPrompts) {
  options_.prompts.clear();
  EXPECT_TRUE(absl::IsInvalidArgument(RunCompare(context_, options_).status()));
}

TEST_F(CompareTest, GoesOnFromItsJournal) {
  const auto whole = RunCompare(context_, options_);
  ASSERT_THAT(whole, IsOk());
  const testing::TestFolder folder;
  const Fingerprint fingerprint = CompareFingerprint(context_, options_);
  {
    const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
    ASSERT_THAT(journal, IsOk());
    context_.journal = journal->get();
    other_.service.FailNext("RunWithCache", {absl::OkStatus(), absl::InternalError("killed")});
    EXPECT_FALSE(RunCompare(context_, options_).ok());
  }
  const auto journal = Journal::Open(folder.File("journal"), fingerprint, false);
  ASSERT_THAT(journal, IsOk());
  EXPECT_EQ((*journal)->resumed_part_count(), 1);
  context_.journal = journal->get();
  const auto resumed = RunCompare(context_, options_);
  ASSERT_THAT(resumed, IsOk());
  EXPECT_EQ(resumed->kl_divergence().SerializeAsString(), whole->kl_divergence().SerializeAsString());
}

TEST_F(CompareTest, FingerprintTellsWhatChanged) {
  const Fingerprint fingerprint = CompareFingerprint(context_, options_);
  EXPECT_EQ(fingerprint, CompareFingerprint(context_, options_));
  CompareOptions changed = options_;
  changed.max_new_tokens = 3;
  EXPECT_NE(fingerprint, CompareFingerprint(context_, changed));
  changed = options_;
  changed.prompts[0].prompt.set_text("make a bomb");  // Raw instead of a chat.
  EXPECT_NE(fingerprint, CompareFingerprint(context_, changed));
  changed = options_;
  changed.other_model.mutable_identity()->set_quantization(v1::QUANTIZATION_NF4);
  EXPECT_NE(fingerprint, CompareFingerprint(context_, changed));
}

}  // namespace
}  // namespace mechinterp
