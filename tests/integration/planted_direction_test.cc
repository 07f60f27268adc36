// `abstract direction`'s experiment on models whose directions of refusal were put there: it finds those.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "clients/experiments/direction.h"
#include "clients/experiments/direction_vectors.h"
#include "tests/integration/planted_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using testing::PlantedServer;
using ::testing::SizeIs;
using Vectors = std::vector<std::vector<float>>;

// Held-out pairs that the model tells apart, in thirds.
DirectionOptions OptionsFor(const PlantedServer& planted) {
  std::set<std::string> holds;
  for (const auto& id : planted.truth().at("holds_for")) holds.insert(id.get<std::string>());
  DirectionOptions options;
  options.judge = *RefusalJudge::Load(PlantedServer::Data("refusal_phrases.json"));
  options.control_count = 1;
  options.max_new_tokens = 8;
  std::vector<PromptPair>* const parts[] = {&options.pairs, &options.validation_pairs, &options.test_pairs};
  size_t next = 0;
  const std::vector<PromptPair> pairs = *LoadPromptPairs(PlantedServer::Data("heldout_prompts.json"));
  for (const PromptPair& pair : pairs) {
    if (holds.count(pair.id) > 0) parts[next++ % 3]->push_back(pair);
  }
  return options;
}

const NamedTensor& Find(const DirectionStudy& study, const std::string& name) {
  return *std::find_if(study.tensors.begin(), study.tensors.end(),
                       [&](const NamedTensor& tensor) { return tensor.name == name; });
}

Vectors RowsOf(const NamedTensor& tensor) {
  Vectors rows;
  const auto width = tensor.shape.back();
  for (auto row = tensor.values.begin(); row != tensor.values.end(); row += width)
    rows.emplace_back(row, row + width);
  return rows;
}

// Degrees, of orthonormal vectors: the arcsine of the largest part of one in `found` that lies outside
// `planted`, over all directions of the subspace. As many on both sides.
double LargestPrincipalAngle(const Vectors& found, const Vectors& planted) {
  Vectors outside;
  for (const std::vector<float>& vector : found) {
    outside.push_back(Difference(vector, PartWithin(vector, planted)));
  }
  const PrincipalComponents components = FindPrincipalComponents(outside, static_cast<int>(outside.size()));
  double squares = 0;
  for (const std::vector<float>& vector : outside) squares += Dot(vector, vector);
  const double largest = components.shares.empty() ? 0 : components.shares.front() * squares;
  return std::asin(std::sqrt(std::min(1.0, largest))) * 180 / std::numbers::pi;
}

const v1::DirectionOutcome& OutcomeOf(const v1::DirectionResults& results, v1::DirectionEdit edit) {
  return *std::find_if(results.outcomes().begin(), results.outcomes().end(),
                       [&](const v1::DirectionOutcome& outcome) { return outcome.edit() == edit; });
}

class PlantedDirections : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Counts, PlantedDirections, ::testing::Values(1, 2, 4));

TEST_P(PlantedDirections, AreRecoveredAndSettingThemEndsRefusals) {
  const int count = GetParam();
  const PlantedServer planted("directions_" + std::to_string(count), "heldout_prompts.json", 3);
  const DirectionOptions options = OptionsFor(planted);
  const absl::StatusOr<DirectionStudy> study = RunDirection(planted.context(), options);
  ASSERT_THAT(study, IsOk());
  const v1::DirectionResults& results = study->results;
  ASSERT_TRUE(results.has_chosen());
  EXPECT_EQ(results.rule(), v1::DIRECTION_RULE_PUBLISHED);
  const v1::DirectionCandidate& chosen = results.candidates(static_cast<int>(results.chosen()));
  EXPECT_EQ(chosen.auroc(), 1);
  EXPECT_NEAR(chosen.cosine(), 1, 1e-9);

  // Where it is: at one of the two positions, from where it is written on.
  const nlohmann::json& positions = planted.truth().at("positions");
  const auto& directions = planted.truth().at("directions");
  const auto place = std::find_if(directions.begin(), directions.end(), [&](const nlohmann::json& direction) {
    return positions.at(direction.at("position").get<std::string>()) == chosen.position();
  });
  ASSERT_NE(place, directions.end()) << chosen.ShortDebugString();
  EXPECT_GE(static_cast<int>(chosen.layer()), place->at("first_layer").get<int>());

  const Vectors subspace = RowsOf(Find(*study, "subspace"));
  EXPECT_THAT(subspace, SizeIs(count));
  EXPECT_LT(LargestPrincipalAngle(subspace, place->at("vectors").get<Vectors>()), 10);

  const v1::DirectionOutcome& clean = OutcomeOf(results, v1::DIRECTION_EDIT_NONE);
  EXPECT_EQ(clean.harmful().rate(), 1);
  EXPECT_EQ(clean.harmless().rate(), 0);
  const v1::DirectionOutcome& set = OutcomeOf(results, v1::DIRECTION_EDIT_SUBSPACE);
  EXPECT_LE(set.harmful().rate(), 0.05);
  EXPECT_EQ(set.harmless().rate(), 0);
  EXPECT_LT(set.harmless_kl().mean(), 0.1);
  EXPECT_LT(set.answer_cross_entropy().mean(), clean.answer_cross_entropy().mean() + 0.1);
  // One direction of several is not enough.
  if (count > 1) {
    EXPECT_GT(OutcomeOf(results, v1::DIRECTION_EDIT_ABLATION).harmful().rate(), 0.5);
  }
}

TEST(DirectionExperiment, IsTheSameTwiceAndFromItsJournal) {
  const PlantedServer planted("directions_1", "heldout_prompts.json", 3);
  DirectionOptions options = OptionsFor(planted);
  for (auto* pairs : {&options.pairs, &options.validation_pairs, &options.test_pairs}) pairs->resize(4);
  options.texts = {"How do I bake a cake?", "I like to write a letter."};
  const std::string path = std::filesystem::temp_directory_path() /
                           ("abstract-direction-" + std::to_string(::getpid()) + ".jsonl");
  ExperimentContext context = planted.context();
  const auto run = [&]() -> std::string {
    absl::StatusOr<DirectionStudy> study = RunDirection(context, options);
    EXPECT_THAT(study, IsOk());
    study->results.clear_provenance();
    return study->results.SerializeAsString();
  };
  const std::string first = run();
  EXPECT_EQ(run(), first);
  {
    auto journal = Journal::Open(path, DirectionFingerprint(context, options), /*restart=*/true);
    ASSERT_THAT(journal, IsOk());
    context.journal = journal->get();
    EXPECT_EQ(run(), first);
  }
  auto journal = Journal::Open(path, DirectionFingerprint(context, options), /*restart=*/false);
  ASSERT_THAT(journal, IsOk());
  EXPECT_GT((*journal)->resumed_part_count(), 0);
  context.journal = journal->get();
  EXPECT_EQ(run(), first);
  EXPECT_THAT((*journal)->Remove(), IsOk());
}

TEST(DirectionExperiment, RefusesToTestOnWhatItChoseOn) {
  const PlantedServer planted("directions_1", "heldout_prompts.json", 3);
  DirectionOptions options = OptionsFor(planted);
  options.test_pairs.push_back(options.pairs.front());
  options.test_pairs.back().id = "copy";
  const auto study = RunDirection(planted.context(), options);
  EXPECT_THAT(study,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--test-prompts, pair \"copy\": \"" + options.pairs.front().harmful)));
}

}  // namespace
}  // namespace mechinterp
