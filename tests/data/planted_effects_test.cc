// Planted models in the engine: they answer as they should, and patching finds what
// truth.json says, and nothing else.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "absl/strings/str_cat.h"
#include "data/make_planted/variants.h"
#include "tests/data/planted_study.h"

namespace mechinterp::make_planted {
namespace {

using engine::HookPoint;

// What norms and distractors may add to an effect that is exact otherwise; what is no node at
// all must stay below the second.
constexpr double kTolerance = 0.02, kNothing = 0.01;

// Pairs that differ in the verb, in the object, and those of the two bombs.
const std::vector<std::string> kSweptPairs = {"violence-1", "weapons-1", "weapons-2", "drugs-1"};

constexpr Direction kDirections[] = {Direction::kNoising, Direction::kDenoising};

struct Case {
  std::string variant;
  uint64_t seed;
  int layers;
  bool is_wide;  // wider heads, fewer key/value heads
};
// For messages.
void PrintTo(const Case& value, std::ostream* out) { *out << value.variant << ", seed " << value.seed; }

PlantedOptions OptionsOf(const Case& value) {
  PlantedOptions options = PlantedStudy::Options(value.variant, value.seed, value.layers);
  if (value.is_wide) {
    options.heads = 12;
    options.kv_heads = 3;
    options.head_size = 32;
    options.d_model = 192;
  }
  return options;
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Variant& variant : Variants()) {
    const int number = static_cast<int>(cases.size());
    cases.push_back({variant.name, static_cast<uint64_t>(number + 1), 4 + number % 9, number % 2 == 1});
  }
  return cases;
}

class PlantedVariantTest : public testing::TestWithParam<Case> {
 protected:
  PlantedVariantTest() : study_(OptionsOf(GetParam())) {}

  PlantedStudy study_;
};
INSTANTIATE_TEST_SUITE_P(Variants, PlantedVariantTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.variant; });

TEST_P(PlantedVariantTest, RefusesTheHarmfulPromptOfEveryPairAndNotTheHarmless) {
  EXPECT_EQ(study_.truth()["holds_for"].size(), study_.words().pairs.size());
  for (const EncodedPair& pair : study_.words().pairs) {
    EXPECT_EQ(study_.AnswerTo(pair.harmful), kRefusalText) << pair.id;
    EXPECT_EQ(study_.AnswerTo(pair.harmless), kComplianceText) << pair.id;
    EXPECT_NEAR(*study_.Measure(pair.harmful).logit_difference, 14, 3) << pair.id;
    EXPECT_NEAR(*study_.Measure(pair.harmless).logit_difference, -14, 3) << pair.id;
  }
}

TEST_P(PlantedVariantTest, PatchingFindsThePlantedNodesAndNothingElse) {
  std::vector<std::string> names = {"embed"};
  for (int layer = 0; layer < study_.config().layer_count(); ++layer) {
    for (int h = 0; h < study_.config().head_count; ++h) names.push_back(absl::StrCat("L", layer, ".H", h));
    for (int n = 0; n < study_.config().d_ff; ++n) names.push_back(absl::StrCat("L", layer, ".N", n));
  }
  for (const EncodedPair& pair : study_.words().pairs) {
    if (std::find(kSweptPairs.begin(), kSweptPairs.end(), pair.id) == kSweptPairs.end()) continue;
    for (const Direction direction : kDirections) {
      std::vector<engine::InterventionSet> sets;
      for (const std::string& name : names) sets.push_back({study_.NodeFromOther(pair, direction, name)});
      const std::vector<double> effects = study_.Effects(pair, direction, sets);
      for (size_t i = 0; i < names.size(); ++i) {
        const double expected = study_.Expected(names[i], pair, direction);
        EXPECT_NEAR(effects[i], expected, expected == 0 ? kNothing : kTolerance)
            << names[i] << " of " << pair.id
            << (direction == Direction::kNoising ? ", noising" : ", denoising");
      }
    }
  }
}

// Where an edge says that a head is reached (by its query, key or value), there patching that
// alone has the head's effect; where none says so, it has none.
TEST_P(PlantedVariantTest, EdgesSayByWhichInputAHeadIsReached) {
  const EncodedPair& pair = study_.words().pairs.front();
  const int heads_per_group = study_.config().head_count / study_.config().key_value_head_count;
  for (const auto& node : study_.truth()["nodes"]) {
    int layer = 0, head = 0;
    if (std::sscanf(node["name"].get<std::string>().c_str(), "L%d.H%d", &layer, &head) != 2) continue;
    for (const auto& [point, letter] :
         {std::pair(HookPoint::kQ, 'q'), {HookPoint::kK, 'k'}, {HookPoint::kV, 'v'}}) {
      const int index = letter == 'q' ? head : head / heads_per_group;
      const std::string receiver = absl::StrCat("->L", layer, ".", std::string(1, letter), index);
      const bool reached = testing::Value(study_.truth()["edges"].get<std::vector<std::string>>(),
                                          testing::Contains(testing::EndsWith(receiver)));
      for (const Direction direction : kDirections) {
        engine::Intervention input = study_.FromOther(pair, direction, {point, layer});
        input.selector.heads = {index};
        const double expected = reached ? study_.Expected(node["name"], pair, direction) : 0;
        EXPECT_NEAR(study_.Effect(pair, direction, {input}), expected, kTolerance) << receiver;
      }
    }
  }
}

// Each edge of the circuit matters in some pair, in one of the directions; no other path
// between planted components does.
TEST_P(PlantedVariantTest, PathPatchingFindsTheEdgesAndNoOthers) {
  const auto edges = study_.truth()["neuron_edges"].get<std::set<std::string>>();
  std::set<std::string> hidden, senders = {"embed"}, receivers = {"final"};
  for (const char* list : {"nodes", "backups", "decoys"}) {
    for (const auto& node : study_.truth()[list]) senders.insert(node["name"].get<std::string>());
  }
  for (const auto& backup : study_.truth()["backups"]) {
    for (const std::string edge : backup["neuron_edges"]) hidden.insert(edge);
  }
  const int heads_per_group = study_.config().head_count / study_.config().key_value_head_count;
  for (const std::string& node : senders) {
    int layer = 0, index = 0;
    char kind = 0;
    if (std::sscanf(node.c_str(), "L%d.%c%d", &layer, &kind, &index) != 3) continue;
    if (kind == 'N') receivers.insert(node);
    if (kind != 'H') continue;
    receivers.insert(absl::StrCat("L", layer, ".q", index));
    for (const char* input : {".k", ".v"}) {
      receivers.insert(absl::StrCat("L", layer, input, index / heads_per_group));
    }
  }
  std::set<std::string> pairs = {"violence-1", "drugs-1"};  // the verb's, the object's
  for (const auto& node : study_.truth()["nodes"]) {
    if (node.contains("pairs")) pairs.insert(node["pairs"].front().get<std::string>());
  }
  for (const std::string& sender : senders) {
    for (const std::string& receiver : receivers) {
      const std::string edge = absl::StrCat(sender, "->", receiver);
      if (hidden.contains(edge)) continue;
      double largest = 0;
      for (const EncodedPair& pair : study_.words().pairs) {
        if (!pairs.contains(pair.id)) continue;
        for (const Direction direction : kDirections) {
          largest = std::max(largest, std::abs(study_.PathEffect(pair, direction, sender, receiver)));
        }
      }
      if (edges.contains(edge)) {
        EXPECT_GT(largest, 0.3) << edge;
      } else {
        EXPECT_LT(largest, kNothing) << edge;
      }
    }
  }
}

// Held-out prompts contradict each other here and there; what is said to hold does.
TEST(PlantedPrompts, HoldForThePairsThatTruthNames) {
  for (const char* variant : {"single_path", "and"}) {
    PlantedOptions options = PlantedStudy::Options(variant, /*seed=*/2, /*layers=*/4);
    options.prompts = ABSTRACT_SOURCE_DIR "/data/heldout_prompts.json";
    PlantedStudy study(options);
    const auto holds_for = study.truth()["holds_for"].get<std::set<std::string>>();
    EXPECT_GT(holds_for.size(), study.words().pairs.size() / 2);
    for (const EncodedPair& pair : study.words().pairs) {
      if (!holds_for.contains(pair.id)) continue;
      EXPECT_EQ(study.AnswerTo(pair.harmful), kRefusalText) << pair.id;
      EXPECT_EQ(study.AnswerTo(pair.harmless), kComplianceText) << pair.id;
    }
  }
}

TEST(PlantedBackup, WorksOnlyWhenWhatItBacksUpIsSilent) {
  PlantedStudy study(PlantedStudy::Options("backup", /*seed=*/3, /*layers=*/6));
  const auto& backup = study.truth()["backups"][0];
  ASSERT_EQ(backup["backs_up"].size(), 1u);
  for (const EncodedPair& pair : study.words().pairs) {
    const auto taken = [&](const std::string& name) {
      return study.NodeFromOther(pair, Direction::kNoising, name);
    };
    const engine::Intervention primary = taken(backup["backs_up"][0]), second = taken(backup["name"]);
    EXPECT_NEAR(study.Effect(pair, Direction::kNoising, {primary}), 0, kNothing) << pair.id;
    EXPECT_NEAR(study.Effect(pair, Direction::kNoising, {second}), 0, kNothing) << pair.id;
    EXPECT_NEAR(study.Effect(pair, Direction::kNoising, {primary, second}), 0.5, kTolerance) << pair.id;
  }
}

// Both directions of an OR: either head is enough, and only both together are needed.
TEST(PlantedOr, HidesFromNoisingOneHead) {
  PlantedStudy study(PlantedStudy::Options("or", /*seed=*/5, /*layers=*/5));
  const EncodedPair& pair = study.words().pairs.front();
  engine::InterventionSet both;
  for (const auto& node : study.truth()["nodes"]) {
    if (node["effects"]["noising"] == 0.0) {
      both.push_back(study.NodeFromOther(pair, Direction::kNoising, node["name"]));
    }
  }
  ASSERT_EQ(both.size(), 2u);
  EXPECT_NEAR(study.Effect(pair, Direction::kNoising, both), 1, kTolerance);
}

double LogitOf(const engine::RunMetrics& metrics, TokenId id) {
  for (const engine::TokenProbability& token : metrics.top_tokens) {
    if (token.id == id) return token.logit;
  }
  return std::nan("");
}

// A decoy raises the refusal's logit by half of what the whole circuit does, and its effect is
// none (PatchingFindsThePlantedNodesAndNothingElse).
TEST(PlantedDecoys, HaveALargeDirectEffectOnTheRefusalsLogit) {
  PlantedStudy study(PlantedStudy::Options("decoy", /*seed=*/8, /*layers=*/7));
  const EncodedPair& pair = study.words().pairs.front();
  const TokenId refusal = study.truth()["metric"]["refusal_tokens"][0];
  const double clean = LogitOf(study.Measure(pair.harmful), refusal);
  ASSERT_EQ(study.truth()["decoys"].size(), 2u);
  for (const auto& decoy : study.truth()["decoys"]) {
    engine::Intervention silent = study.NodeFromOther(pair, Direction::kNoising, decoy["name"]);
    silent.edit = engine::Zeroing();
    EXPECT_NEAR(LogitOf(study.Measure(pair.harmful, {silent}), refusal), clean - 14, 0.5) << decoy["name"];
  }
}

}  // namespace
}  // namespace mechinterp::make_planted
