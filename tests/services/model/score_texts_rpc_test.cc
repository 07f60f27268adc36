// ScoreTexts over gRPC: log-probabilities against the logits that RunWithCache returns, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;

struct Scored {
  grpc::Status status;
  v1::ScoreTextsHeader header;
  std::vector<v1::TextScore> scores;
  v1::ScoreTextsSummary summary;
};

class ScoreTextsRpc : public testing::Test {
 protected:
  Scored Run(const v1::ScoreTextsRequest& request) {
    grpc::ClientContext context;
    const auto reader = service_.stub().ScoreTexts(&context, request);
    Scored scored;
    v1::ScoreTextsResponse message;
    while (reader->Read(&message)) {
      if (message.has_header()) scored.header = message.header();
      if (message.has_score()) scored.scores.push_back(message.score());
      if (message.has_summary()) scored.summary = message.summary();
    }
    scored.status = reader->Finish();
    return scored;
  }

  static std::vector<uint32_t> Tokens(int length, int seed) {
    std::vector<uint32_t> ids;
    for (int t = 0; t < length; ++t) ids.push_back(static_cast<uint32_t>((31 * seed + 7 * t) % 200 + 3));
    return ids;
  }
  static v1::TextToScore Text(const std::vector<uint32_t>& prompt,
                              const std::vector<uint32_t>& continuation = {}) {
    v1::TextToScore text;
    text.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(prompt.begin(), prompt.end());
    if (!continuation.empty()) {
      text.mutable_continuation_token_ids()->mutable_ids()->Assign(continuation.begin(), continuation.end());
    }
    return text;
  }

  // Of each token from `first` on, by the softmax of the logits before it, in double precision.
  std::vector<double> Expected(const std::vector<uint32_t>& ids, size_t first,
                               const std::string& edits = "") {
    auto request = Parse<v1::RunWithCacheRequest>("filter { name_patterns: 'logits' }" + edits);
    request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
    const ServiceFixture::Cached cached = service_.RunWithCache(request);
    EXPECT_THAT(cached.status, IsOk());
    const engine::HostTensor& logits = cached.tensors.at("logits");
    const auto vocabulary = static_cast<size_t>(logits.shape[1]);
    std::vector<double> expected;
    for (size_t t = first; t < ids.size(); ++t) {
      const float* row = logits.values.data() + (t - 1) * vocabulary;
      double sum = 0;
      for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(double{row[v]} - row[ids[t]]);
      expected.push_back(-std::log(sum));
    }
    return expected;
  }

  static void ExpectScore(const v1::TextScore& score, const std::vector<double>& expected) {
    ASSERT_THAT(score.log_probabilities(), SizeIs(expected.size()));
    double sum = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(score.log_probabilities(static_cast<int>(i)), expected[i], 1e-5);
      sum += expected[i];
    }
    EXPECT_NEAR(score.cross_entropy(), -sum / static_cast<double>(expected.size()), 1e-5);
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(ScoreTextsRpc, AreTheLogProbabilitiesOfTheLogits) {
  // Longer than a text's rows in one pass, many short ones, and lengths about that border.
  const int lengths[] = {300, 5, 2, 128, 129, 130, 17, 9, 40};
  v1::ScoreTextsRequest request;
  for (int i = 0; i < 9; ++i) *request.add_texts() = Text(Tokens(lengths[i], i));
  const Scored scored = Run(request);
  ASSERT_THAT(scored.status, IsOk());
  EXPECT_EQ(scored.header.text_count(), 9u);
  ASSERT_THAT(scored.scores, SizeIs(9));
  double sum = 0;
  uint64_t count = 0;
  for (int i = 0; i < 9; ++i) {
    const v1::TextScore& score = scored.scores[i];
    const std::vector<uint32_t> ids = Tokens(lengths[i], i);
    EXPECT_EQ(score.text_index(), static_cast<uint32_t>(i));
    EXPECT_EQ(score.first_position(), 1u);
    EXPECT_THAT(score.token_ids(), ElementsAreArray(ids.begin() + 1, ids.end()));
    const std::vector<double> expected = Expected(ids, 1);
    ExpectScore(score, expected);
    for (const double value : expected) sum += value;
    count += expected.size();
  }
  EXPECT_EQ(scored.summary.token_count(), count);
  EXPECT_NEAR(scored.summary.cross_entropy(), -sum / static_cast<double>(count), 1e-5);
}

TEST_F(ScoreTextsRpc, OfContinuationsAlone) {
  v1::ScoreTextsRequest request;
  const std::vector<uint32_t> prompt = Tokens(140, 1), continuation = Tokens(150, 2);
  *request.add_texts() = Text(prompt, continuation);
  *request.add_texts() = Text({7}, {9});
  const Scored scored = Run(request);
  ASSERT_THAT(scored.status, IsOk());
  std::vector<uint32_t> all = prompt;
  all.insert(all.end(), continuation.begin(), continuation.end());
  EXPECT_EQ(scored.scores[0].first_position(), 140u);
  EXPECT_THAT(scored.scores[0].token_ids(), ElementsAreArray(continuation));
  ExpectScore(scored.scores[0], Expected(all, 140));
  ExpectScore(scored.scores[1], Expected({7, 9}, 1));
}

// A continuation's positions are generated ones: an edit of the prompt alone leaves theirs as they are.
TEST_F(ScoreTextsRpc, UnderInterventionsOfPromptAndContinuation) {
  const std::vector<uint32_t> prompt = Tokens(6, 1), continuation = Tokens(5, 2);
  std::vector<uint32_t> all = prompt;
  all.insert(all.end(), continuation.begin(), continuation.end());
  const std::string zeroing = "interventions { site { point: HOOK_POINT_MLP_OUT layer: 1 } zeroing {} ";
  const auto scores = [&](const std::string& edits) {
    auto request = Parse<v1::ScoreTextsRequest>(edits);
    *request.add_texts() = Text(prompt, continuation);
    const Scored scored = Run(request);
    EXPECT_THAT(scored.status, IsOk());
    return scored.scores[0];
  };
  ExpectScore(scores(zeroing + "}"), Expected(all, 6, zeroing + "}"));
  const std::string at_prompt =
      "selector { positions { ranges { start: 0 end: 6 } } scope: INTERVENTION_SCOPE_PROMPT } }";
  ExpectScore(scores(zeroing + "selector { scope: INTERVENTION_SCOPE_PROMPT } }"),
              Expected(all, 6, zeroing + at_prompt));
  const std::string after =
      "selector { positions { ranges { start: 6 } } scope: INTERVENTION_SCOPE_PROMPT } }";
  ExpectScore(scores(zeroing + "selector { scope: INTERVENTION_SCOPE_GENERATED } }"),
              Expected(all, 6, zeroing + after));
}

TEST_F(ScoreTextsRpc, RefusesWhatHasNothingToScore) {
  v1::ScoreTextsRequest request;
  EXPECT_THAT(FieldsAtFault(Run(request).status), ElementsAre("texts"));
  *request.add_texts() = Text({5});
  EXPECT_THAT(ViolationsOf(Run(request).status),
              ElementsAre(Pair("texts[0].prompt", HasSubstr("a single token"))));
  *request.mutable_texts(0) = Text(Tokens(8000, 1), Tokens(300, 1));
  EXPECT_THAT(ViolationsOf(Run(request).status),
              ElementsAre(Pair("texts[0].prompt", HasSubstr("exceeds the model's context"))));
  *request.mutable_texts(0) = Text(Tokens(3, 1));
  request.mutable_texts(0)->mutable_continuation_token_ids();
  EXPECT_THAT(FieldsAtFault(Run(request).status), ElementsAre("texts[0].continuation_token_ids.ids"));
  request.mutable_texts(0)->set_continuation_text("");
  EXPECT_THAT(FieldsAtFault(Run(request).status), ElementsAre("texts[0].continuation_text"));
}

}  // namespace
}  // namespace mechinterp
