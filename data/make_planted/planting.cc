#include "data/make_planted/planting.h"

namespace mechinterp::make_planted {
namespace {

// The logit of a refusal's first token where `refuse` is 1; a compliance's is always half.
constexpr double kRefusalLogit = 28;

}  // namespace

Planting::Planting(const Words& words, const Answers& answers, CircuitBuilder& builder, Random& random)
    : words_(words), answers_(answers), builder_(builder), random_(random) {
  for (Feature* feature : {&end_of_turn, &last, &word, &verb, &object}) *feature = builder.AddFeature(false);
  for (Feature* feature : {&harm, &harmful_verb, &harmful_object, &refuse}) *feature = AddSignal();
  const EncodedPair& example = words.pairs.front();
  end_to_last_ = example.tail_length - 1;
  builder.Embed(example.harmful[example.harmful.size() - example.tail_length], end_of_turn);
  builder.Embed(example.harmful.back(), last);
  EmbedClass(words.decisive, word, harm);
  EmbedClass(words.verbs, verb, harmful_verb);
  EmbedClass(words.objects, object, harmful_object);
  PlantAnswers(answers, builder);
  ReadForRefusal(refuse, 1);
  ReadForCompliance(last, 0.5);
}

void Planting::EmbedClass(const WordClass& words, Feature level, Feature harmful) {
  for (const auto& [token, word] : words.words) {
    builder_.Embed(token, level, word.level);
    if (word.harmful) builder_.Embed(token, harmful);
  }
}

std::vector<HarmClass> Planting::SplitHarm(int count) {
  std::vector<HarmClass> classes;
  for (int i = 0; i < count; ++i) {
    classes.push_back({AddSignal(), words_.decisive});
    for (auto& [token, word] : classes.back().words.words) word.harmful = false;
  }
  int next = 0;
  for (const auto& [token, word] : words_.decisive.words) {
    if (!word.harmful) continue;
    HarmClass& own = classes[next++ % count];
    own.words.words[token].harmful = true;
    builder_.Embed(token, own.harm);
  }
  return classes;
}

void Planting::ReadForRefusal(Feature feature, double share_of_refusal) {
  builder_.ReadOut(answers_.refusal.front(), feature, share_of_refusal * kRefusalLogit);
}

void Planting::ReadForCompliance(Feature feature, double share_of_refusal) {
  builder_.ReadOut(answers_.compliance.front(), feature, share_of_refusal * kRefusalLogit);
}

void Planting::ReadForBoth(Feature feature, double share_of_refusal) {
  for (const auto* tokens : {&answers_.refusal_openings, &answers_.compliance_openings}) {
    for (const TokenId token : *tokens) builder_.ReadOut(token, feature, share_of_refusal * kRefusalLogit);
  }
}

std::vector<int> Planting::PickLayers(std::initializer_list<NodeKind> chain) {
  while (true) {
    std::vector<int> layers;
    int before = -1;
    bool ascends = true;
    for (const NodeKind kind : chain) {
      layers.push_back(static_cast<int>(random_.Index(builder_.shape().layer_count())));
      const int place = 2 * layers.back() + (kind == NodeKind::kNeuron ? 1 : 0);
      ascends = ascends && place > before;
      before = place;
    }
    if (ascends) return layers;
  }
}

std::string Planting::AddHead(int layer, const HeadSpec& spec, NodeNote note) {
  const int node = builder_.AddHead(layer, builder_.FreeHead(layer, random_), spec);
  notes_.push_back(std::move(note));
  return builder_.nodes()[node].name();
}

std::string Planting::AddNeuron(int layer, const NeuronSpec& spec, NodeNote note) {
  const int node = builder_.AddNeuron(layer, builder_.FreeNeuron(layer, random_), spec);
  notes_.push_back(std::move(note));
  return builder_.nodes()[node].name();
}

HeadSpec Planting::FromWord(Terms key, Terms reads, Terms writes) const {
  return {.query = {{end_of_turn}}, .key = std::move(key), .moves = {{std::move(reads), std::move(writes)}}};
}

HeadSpec Planting::FromEndOfTurn(Terms reads, Terms writes) const {
  return {.query = {{last}}, .key = {{end_of_turn}}, .moves = {{std::move(reads), std::move(writes)}}};
}

HeadSpec Planting::FromEndOfTurnByOffset(Terms reads, Terms writes) const {
  return {.query = {{last}}, .offset = end_to_last_, .moves = {{std::move(reads), std::move(writes)}}};
}

}  // namespace mechinterp::make_planted
