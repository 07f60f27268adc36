// What the direction experiment is made of, against closed forms.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "clients/experiments/direction_edits.h"
#include "clients/experiments/direction_vectors.h"
#include "clients/experiments/pair_split.h"
#include "clients/experiments/published_scores.h"
#include "clients/experiments/stream_vectors.h"
#include "services/common/tensor_proto.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::FloatNear;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(DirectionVectors, AreMeasuredAndDivided) {
  const std::vector<float> v = {3, 4, 0}, w = {0, 1, 0};
  EXPECT_EQ(Norm(v), 5);
  EXPECT_THAT(UnitOf(v), ElementsAre(0.6f, 0.8f, 0));
  EXPECT_EQ(Cosine(v, w), 0.8);
  EXPECT_EQ(Cosine(v, {0, 0, 0}), 0);
  EXPECT_THAT(UnitOf({0, 0}), ElementsAre(0, 0));
  const std::vector<std::vector<float>> basis = {{1, 0, 0}, {0, 0, 1}};
  EXPECT_THAT(PartWithin(v, basis), ElementsAre(3, 0, 0));
  EXPECT_DOUBLE_EQ(ShareWithin(v, basis), 9.0 / 25);
}

TEST(DirectionVectors, RandomOnesAreUnitsOfTheirSeed) {
  const std::vector<float> first = RandomUnit(1000, 1), second = RandomUnit(1000, 2);
  EXPECT_NEAR(Norm(first), 1, 1e-6);
  EXPECT_EQ(first, RandomUnit(1000, 1));
  EXPECT_LT(std::abs(Cosine(first, second)), 0.15);  // five deviations of 1 / sqrt(1000)
}

// Rows s u + t v with u and v at right angles: the components are these, by the sums of s^2 and t^2.
TEST(PrincipalComponents, AreTheAxesOfWhatSpansTheRows) {
  const std::vector<float> u = UnitOf({1, 2, 2, 0}), v = UnitOf({2, -1, 0, 2});
  ASSERT_NEAR(Dot(u, v), 0, 1e-6);
  std::vector<std::vector<float>> rows;
  const double s[] = {3, -1, 2, 4, 0}, t[] = {1, 3, 0, 0, -1};  // s.t = 0
  for (int i = 0; i < 5; ++i) {
    std::vector<float> row;
    for (int k = 0; k < 4; ++k) row.push_back(static_cast<float>(s[i] * u[k] + t[i] * v[k]));
    rows.push_back(row);
  }
  const PrincipalComponents components = FindPrincipalComponents(rows, 4);
  ASSERT_THAT(components.directions, SizeIs(2));  // no more than they span
  EXPECT_NEAR(std::abs(Cosine(components.directions[0], u)), 1, 1e-6);
  EXPECT_NEAR(std::abs(Cosine(components.directions[1], v)), 1, 1e-6);
  EXPECT_THAT(components.shares, ElementsAre(DoubleNear(30.0 / 41, 1e-6), DoubleNear(11.0 / 41, 1e-6)));
  EXPECT_THAT(FindPrincipalComponents(rows, 1).directions, SizeIs(1));
  EXPECT_THAT(FindPrincipalComponents({}, 3).directions, IsEmpty());
  EXPECT_THAT(FindPrincipalComponents({{0, 0}, {0, 0}}, 3).directions, IsEmpty());
}

TEST(PrincipalComponents, AreOrthonormalAndHoldTheRowsSquares) {
  std::vector<std::vector<float>> rows;
  for (uint64_t i = 0; i < 40; ++i) rows.push_back(RandomUnit(100, i));
  const PrincipalComponents components = FindPrincipalComponents(rows, 100);
  ASSERT_THAT(components.directions, SizeIs(40));
  double sum = 0;
  for (size_t i = 0; i < 40; ++i) {
    sum += components.shares[i];
    EXPECT_LE(components.shares[i], components.shares[i == 0 ? 0 : i - 1]);
    for (size_t j = 0; j < i; ++j) {
      EXPECT_NEAR(Dot(components.directions[i], components.directions[j]), 0, 1e-5);
    }
    double along = 0;  // what the share says
    for (const std::vector<float>& row : rows) along += std::pow(Dot(row, components.directions[i]), 2);
    EXPECT_NEAR(along / 40, components.shares[i], 1e-6);
  }
  EXPECT_NEAR(sum, 1, 1e-9);
}

TEST(DirectionEdits, ProjectOutOfEverythingThatIsReadAndWritten) {
  const std::vector<v1::Intervention> edits = ProjectOut({{1, 0}, {0, 1}});
  ASSERT_THAT(edits, SizeIs(2));
  EXPECT_THAT(edits[0].sites().points(),
              ElementsAre(v1::HOOK_POINT_RESID_PRE, v1::HOOK_POINT_ATTN_OUT, v1::HOOK_POINT_MLP_OUT));
  EXPECT_THAT(edits[0].sites().layers(), IsEmpty());  // all
  EXPECT_THAT(*FloatValues(edits[1].projection_removal().direction()), ElementsAre(0, 1));
}

TEST(DirectionEdits, SetThePartOfEachLayersMean) {
  const std::vector<float> first = {5, 7}, second = {1, 2};
  const absl::Span<const float> mean[] = {first, second};
  const std::vector<v1::Intervention> edits = SetPart({{0, 1}}, mean);
  ASSERT_THAT(edits, SizeIs(3));
  EXPECT_TRUE(edits[0].has_projection_removal());
  EXPECT_EQ(edits[2].site().layer(), 1u);
  EXPECT_THAT(*FloatValues(edits[1].addition().vector()), ElementsAre(0, 7));
  EXPECT_THAT(*FloatValues(edits[2].addition().vector()), ElementsAre(0, 2));
}

TEST(StreamMean, WeighsByCount) {
  const StreamVectors one{1, 2, 1, {1, 10}}, other{1, 2, 1, {4, 40}};
  StreamMean mean;
  mean.Add(one, 1);
  mean.Add(other, 2);
  EXPECT_THAT(mean.Mean().values, ElementsAre(FloatNear(3, 1e-6f), FloatNear(30, 1e-5f)));
  EXPECT_THAT((other - one).values, ElementsAre(3, 30));
  EXPECT_EQ(other.at(0, 1)[0], 40);
  EXPECT_EQ(other.from_end(1), -1);
  EXPECT_THAT(UnitsOf(StreamVectors{1, 2, 2, {3, 4, 0, 0}}).values, ElementsAre(0.6f, 0.8f, 0, 0));
}

std::vector<PromptPair> Pairs(int count) {
  std::vector<PromptPair> pairs;
  for (int i = 0; i < count; ++i) {
    const std::string id = std::to_string(i);
    pairs.push_back({id, i % 2 == 0 ? "even" : "odd", "harm " + id, "no harm " + id});
  }
  return pairs;
}

TEST(PairSplit, KeepsEveryFourthForValidation) {
  const PairSplit split = SplitPairs(Pairs(9), {});
  EXPECT_THAT(split.training, SizeIs(7));
  ASSERT_THAT(split.validation, SizeIs(2));
  EXPECT_EQ(split.validation[1].id, "7");
  EXPECT_THAT(SplitPairs(Pairs(9), Pairs(3)).training, SizeIs(9));
  EXPECT_THAT(SplitPairs(Pairs(3), {}).validation, SizeIs(3));
}

TEST(PairSplit, TellsWhichPromptIsOnBothSides) {
  const std::vector<PromptPair> pairs = Pairs(3), others = {{"x", "c", "other", "another"}},
                                overlap = {{"x", "c", "other", " No harm 2"}};
  EXPECT_THAT(CheckDisjoint({"--a", pairs}, {"--b", others}), IsOk());
  EXPECT_THAT(CheckDisjoint({"--a", pairs}, {"--b", overlap}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--b, pair \"x\": \" No harm 2\" is also in --a, pair \"2\"")));
}

TEST(PairSplit, GroupsByCategoryInOrder) {
  const std::vector<PromptPair> pairs = Pairs(5);
  const std::vector<PairCategory> categories = CategoriesOf(pairs);
  ASSERT_THAT(categories, SizeIs(2));
  EXPECT_EQ(categories[0].name, "even");
  EXPECT_THAT(categories[0].pairs, ElementsAre(&pairs[0], &pairs[2], &pairs[4]));
}

TEST(PublishedScores, AreThoseOfTheFile) {
  const auto scores =
      LoadPublishedScores(ABSTRACT_SOURCE_DIR "/data/published/llama3_8b_instruct_directions.tsv");
  ASSERT_THAT(scores, IsOk());
  ASSERT_THAT(*scores, SizeIs(160));
  // The chosen one of the paper: -5, layer 12.
  const PublishedScore& chosen = (*scores)[12];
  EXPECT_EQ(chosen.position, -5);
  EXPECT_EQ(chosen.layer, 12);
  EXPECT_NEAR(chosen.bypass, -9.86, 0.01);
  EXPECT_NEAR(chosen.induce, 7.68, 0.01);
  EXPECT_NEAR(chosen.kl, 0.059, 0.001);
  EXPECT_TRUE(IsPublishedModel("meta-llama/Meta-Llama-3-8B-Instruct", 32));
  EXPECT_FALSE(IsPublishedModel("meta-llama/Meta-Llama-3-8B-Instruct", 8));
  EXPECT_FALSE(IsPublishedModel("meta-llama/Llama-3.1-8B-Instruct", 32));
}

TEST(PublishedScores, TellOfABadLine) {
  const std::string path = std::filesystem::path(testing::TempDir()) / "scores.tsv";
  std::ofstream(path)
      << "# of a paper\nposition\tlayer\tbypass\tinduce\tkl\n-1\t0\t1\t2\t0.1\n-1\t1\tx\t2\t0.1\n";
  EXPECT_THAT(LoadPublishedScores(path),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("scores.tsv:4: ")));
}

TEST(PublishedScores, AreComparedWhereBothHaveThem) {
  v1::DirectionResults results;
  for (uint32_t layer = 0; layer < 4; ++layer) {
    v1::DirectionCandidate& candidate = *results.add_candidates();
    candidate.set_position(-1);
    candidate.set_layer(layer);
    candidate.set_bypass(layer);
    candidate.set_induce(layer);
    candidate.set_kl(layer * layer);
  }
  const std::vector<PublishedScore> published = {
      {-1, 0, 5, 9, 0}, {-1, 1, 6, 8, 1}, {-1, 2, 7, 7, 2}, {-3, 3, 0, 0, 0}};
  const auto agreement = AgreementWith(published, results);
  ASSERT_TRUE(agreement.has_value());
  EXPECT_EQ(agreement->candidate_count(), 3u);
  EXPECT_EQ(agreement->bypass(), 1);
  EXPECT_EQ(agreement->induce(), -1);
  EXPECT_EQ(agreement->kl(), 1);
  EXPECT_FALSE(AgreementWith({published[0]}, results).has_value());
}

}  // namespace
}  // namespace mechinterp
