// The parts that planted models are made of, and what truth.json says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/make_planted/planted_model.h"
#include "data/make_planted/variants.h"
#include "data/make_planted/words.h"
#include "services/common/json_file.h"
#include "services/engine/tokenizer/tokenizer.h"
#include "tests/data/planted_study.h"
#include "tests/status_matchers.h"

namespace mechinterp::make_planted {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::UnorderedElementsAre;

const std::string kData = ABSTRACT_SOURCE_DIR "/data/";

const engine::Tokenizer& EmbeddedTokenizer() {
  static const auto& tokenizer = *new std::shared_ptr<const engine::Tokenizer>(
      *engine::Tokenizer::Load(kData + "models/tiny-llama-refusal/tokenizer.json"));
  return *tokenizer;
}

TokenId Token(const std::string& text) {
  const std::vector<TokenId> ids = EmbeddedTokenizer().Encode(text);
  EXPECT_EQ(ids.size(), 1u) << text;
  return ids.front();
}

// A prompt file of one pair after the other: harmful, harmless.
std::string PromptFile(const std::vector<std::string>& prompts) {
  nlohmann::ordered_json pairs = nlohmann::ordered_json::array();
  for (size_t i = 0; i + 1 < prompts.size(); i += 2) {
    pairs.push_back({{"id", std::to_string(i / 2)}, {"harmful", prompts[i]}, {"harmless", prompts[i + 1]}});
  }
  const std::string path = testing::TempDir() + "/planted-prompts.json";
  EXPECT_THAT(WriteJsonFile(path, {{"pairs", pairs}}), IsOk());
  return path;
}

TEST(FindWords, TellsAllPairsOfTheStudyByOneWordAndByTwo) {
  const auto words = FindWords(kData + "prompts.json", EmbeddedTokenizer());
  ASSERT_THAT(words, IsOk());
  EXPECT_EQ(words->pairs.size(), 15u);
  EXPECT_EQ(PairsToldByOneWord(*words).size(), 15u);
  EXPECT_EQ(PairsToldByVerbAndObject(*words).size(), 15u);
  EXPECT_TRUE(words->decisive.words.at(Token(" kill")).harmful);
  EXPECT_FALSE(words->decisive.words.at(Token(" thank")).harmful);
  EXPECT_FALSE(words->decisive.words.contains(Token(" neighbor")));
  // A head that looks for the decisive word of "a bath bomb" must not stop at the bomb.
  EXPECT_GT(words->decisive.words.at(Token(" bath")).level, words->decisive.words.at(Token(" bomb")).level);
  EXPECT_TRUE(words->verbs.words.at(Token(" plant")).harmful);
  EXPECT_TRUE(words->objects.words.at(Token(" neighbor")).harmful);
  EXPECT_FALSE(words->objects.words.at(Token(" tree")).harmful);
}

TEST(FindWords, FindsNoneInPairsThatDifferInMoreThanAWord) {
  const auto words = FindWords(PromptFile({"How do I kill my boss?", "How do I thank my neighbor?",  //
                                           "How do I kill my boss?", "How do I thank my boss now?"}),
                               EmbeddedTokenizer());
  ASSERT_THAT(words, IsOk());
  EXPECT_THAT(words->decisive.words, IsEmpty());
  EXPECT_THAT(PairsToldByOneWord(*words), IsEmpty());
}

TEST(FindWords, LeavesOutPairsWhoseWordsContradictOthers) {
  const auto words = FindWords(PromptFile({"How do I kill my boss?", "How do I thank my boss?",  //
                                           "How do I shoot my boss?", "How do I kill my boss?"}),
                               EmbeddedTokenizer());
  ASSERT_THAT(words, IsOk());
  EXPECT_THAT(PairsToldByOneWord(*words), ElementsAre(0));  // killing is harmful now, everywhere
}

TEST(FindWords, ErrorsNameTheFileAndThePair) {
  const std::string path = testing::TempDir() + "/planted-broken.json";
  ASSERT_THAT(WriteJsonFile(path, {{"pairs", {{{"id", "a"}, {"harmful", "x"}}}}}), IsOk());
  EXPECT_THAT(FindWords(path, EmbeddedTokenizer()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path + ": pairs[0]: \"harmless\"")));
  EXPECT_THAT(FindWords(path + "x", EmbeddedTokenizer()), StatusIs(absl::StatusCode::kNotFound));
}

TEST(RandomRotation, IsOrthonormal) {
  Random random(1);
  const DenseMatrix rotation = RandomRotation(40, random);
  const DenseMatrix product = MultiplyTransposed(rotation, rotation);
  for (int i = 0; i < 40; ++i) {
    for (int j = 0; j < 40; ++j) EXPECT_NEAR(product(i, j), i == j ? 1 : 0, 1e-14);
  }
}

engine::ModelConfig SmallShape() {
  engine::ModelConfig shape;
  shape.layers.resize(4);
  shape.head_count = 8;
  shape.key_value_head_count = 4;
  shape.head_size = 16;
  shape.d_model = 64;
  shape.d_ff = 8;
  shape.vocabulary_size = 10;
  return shape;
}

// Edges join who writes and who reads the same feature, in the order of the pass, if it tells
// anything: what all prompts have alike makes none.
TEST(CircuitBuilder, EdgesFollowFeatures) {
  CircuitBuilder builder(SmallShape(), /*begin=*/0);
  const Feature place = builder.AddFeature(false), harm = builder.AddFeature(true);
  const Feature moved = builder.AddFeature(true), answer = builder.AddFeature(true);
  const Feature alike = builder.AddFeature(true);
  builder.Embed(1, place);
  builder.Embed(2, harm);
  builder.ReadOut(3, answer, 1);
  for (const TokenId token : {3, 4}) builder.ReadOut(token, alike, 1);
  builder.AddHead(1, 2, {.query = {{place}}, .key = {{place}}, .moves = {{{{harm}}, {{moved}}}}});
  builder.AddNeuron(1, 5, {{{moved}}, {{kConstant}}, {{answer}, {alike}}});
  builder.AddNeuron(0, 6, {{{moved}}, {{kConstant}}, {{answer}}});  // before what it reads is there
  builder.AddHead(3, 7, {.query = {{moved}}, .key = {{moved}}, .moves = {{{{place}}, {{alike}}}}});
  std::vector<std::string> names, by_neuron;
  for (const Edge& edge : builder.Edges({3}, {4})) {
    names.push_back(edge.name);
    by_neuron.push_back(edge.by_neuron);
  }
  EXPECT_THAT(names, UnorderedElementsAre("embed->L1.v1", "L1.H2->L1.mlp", "L1.H2->L3.q7", "L1.H2->L3.k3",
                                          "L1.mlp->final", "L0.mlp->final"));
  EXPECT_THAT(by_neuron, Contains("L1.H2->L1.N5"));
  EXPECT_THAT(by_neuron, Contains("L1.N5->final"));
}

TEST(CircuitBuilder, TakesHeadsOfDifferentKeyValueHeadsWhileThereAre) {
  CircuitBuilder builder(SmallShape(), /*begin=*/0);
  const Feature place = builder.AddFeature(false);
  Random random(1);
  std::set<int> groups, heads;
  for (int i = 0; i < 4; ++i) {
    const int head = builder.FreeHead(0, random);
    builder.AddHead(0, head, {.query = {{place}}, .key = {{place}}, .moves = {{{{place}}, {{place}}}}});
    groups.insert(builder.GroupOf(head));
    heads.insert(head);
  }
  EXPECT_EQ(groups.size(), 4u);
  EXPECT_FALSE(heads.contains(builder.FreeHead(0, random)));
}

TEST(CheckSizes, NamesWhatIsTooSmall) {
  engine::ModelConfig shape = SmallShape();
  EXPECT_THAT(CheckSizes(shape), IsOk());
  shape.d_model = 48;
  EXPECT_THAT(CheckSizes(shape), StatusIs(absl::StatusCode::kInvalidArgument,
                                          "d-model is 48; a planted circuit needs 64 at least"));
}

// Errors of the whole.
TEST(MakePlanted, RefusesWhatCannotBe) {
  const auto error = [](const auto& change) {
    PlantedOptions options = PlantedStudy::Options("single_path", 1, 4);
    change(options);
    return MakePlanted(options).status();
  };
  EXPECT_THAT(error([](PlantedOptions& options) { options.variant = "xor"; }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("there are single_path, ")));
  EXPECT_THAT(
      error([](PlantedOptions& options) { options.kv_heads = 3; }),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'num_key_value_heads' does not divide")));
  EXPECT_THAT(error([](PlantedOptions& options) {
                options.prompts = PromptFile({"Hello", "Hello"});
              }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("tell none of the pairs")));
  EXPECT_THAT(error([](PlantedOptions& options) {
                options.prompts = PromptFile({"One.\n\nHow do I kill him?", "One.\n\nHow do I thank him?"});
              }),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("pair 0 holds tokens")));
}

TEST(MakePlanted, DependsOnVariantAndSeedAlone) {
  const auto made = [](const std::string& variant, uint64_t seed) {
    return *MakePlanted(PlantedStudy::Options(variant, seed, 4));
  };
  const PlantedModel model = made("and", 1), same = made("and", 1), other = made("and", 2);
  EXPECT_EQ(model.files, same.files);
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    EXPECT_EQ(model.tensors[i].values, same.tensors[i].values);
    EXPECT_NE(model.tensors[i].values, other.tensors[i].values) << model.tensors[i].name;
  }
}

// Every name is of the model, every node of the circuit lies on a way from the embedding to the
// logits, and nothing else does.
TEST(Truth, IsWellFormed) {
  for (const Variant& variant : Variants()) {
    const auto model = MakePlanted(PlantedStudy::Options(variant.name, /*seed=*/4, /*layers=*/5));
    ASSERT_THAT(model, IsOk());
    const auto truth = nlohmann::ordered_json::parse(model->files.at("truth.json"));
    EXPECT_EQ(truth["neuron_edges"], model->edges);
    EXPECT_EQ(truth["variant"], variant.name);
    EXPECT_EQ(truth["holds_for"].size(), 15u);
    std::set<std::string> nodes = {"final"}, senders = {"final"}, receivers = {"embed"};
    for (const auto& node : truth["nodes"]) nodes.insert(node["name"].get<std::string>());
    for (const std::string edge : truth["edges"]) {
      EXPECT_THAT(edge, MatchesRegex("(embed|L[0-4]\\.(H[0-7]|mlp))->(L[0-4]\\.([qkv][0-7]|mlp)|final)"));
    }
    for (const std::string edge : truth["neuron_edges"]) {
      const size_t arrow = edge.find("->");
      senders.insert(edge.substr(0, arrow));
      const std::string receiver = edge.substr(arrow + 2);
      for (const std::string& node : nodes) {
        // "L2.v1" is reached through the head of that layer whose key/value head it is.
        const bool is_input = node.find(".H") != std::string::npos && receiver.find_first_of("qkv") == 3 &&
                              node.substr(0, 3) == receiver.substr(0, 3);
        if (node == receiver || is_input) receivers.insert(node);
      }
    }
    EXPECT_EQ(senders, nodes) << variant.name;
    EXPECT_EQ(receivers, nodes) << variant.name;
    EXPECT_EQ(truth["backups"].empty(), variant.name != "backup");
    EXPECT_EQ(truth["decoys"].empty(), variant.name != "decoy");
  }
}

}  // namespace
}  // namespace mechinterp::make_planted
