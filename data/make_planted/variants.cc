#include "data/make_planted/variants.h"

#include <cmath>

namespace mechinterp::make_planted {
namespace {

constexpr NodeKind kHead = NodeKind::kHead, kNeuron = NodeKind::kNeuron;

double Silu(double x) { return x / (1 + std::exp(-x)); }

// A neuron that passes on what it reads: its gate is open at every position.
NeuronSpec Linear(Terms reads, Feature writes, double factor = 1) {
  constexpr double kOpen = 4;
  return {{{kConstant, kOpen}}, std::move(reads), {{writes, factor / Silu(kOpen)}}};
}

// Two heads -> one neuron -> one head, in these layers; the second head where it finds room.
struct Chain {
  std::string first_head;
  Feature first_half;
  Feature sum;  // at the end of the turn
};
Chain PlantChain(Planting& p, int heads, int neuron, int copier, double copied, Terms also_summed = {}) {
  Chain chain;
  chain.first_half = p.AddSignal();
  const Feature second_half = p.AddSignal();
  chain.sum = p.AddSignal();
  const NodeNote half{.does = "moves half of the word's harm to the end of the turn",
                      .effects = {also_summed.empty() ? 0.5 : 0, 0.5}};
  chain.first_head = p.AddHead(heads, p.FromWord({{p.word}}, {{p.harm}}, {{chain.first_half, 0.5}}), half);
  p.AddHead(p.PickLayerUpTo(neuron), p.FromWord({{p.word}}, {{p.harm}}, {{second_half, 0.5}}),
            {.does = half.does, .effects = {0.5, 0.5}});
  Terms summed = std::move(also_summed);
  for (const Feature half_harm : {chain.first_half, second_half}) summed.push_back({half_harm});
  p.AddNeuron(neuron, Linear(summed, chain.sum), {.does = "adds the halves", .effects = {1, 1}});
  p.AddHead(copier, p.FromEndOfTurn({{chain.sum}}, {{p.refuse, copied}}),
            {.does = "moves the sum to the last position, as refusal", .effects = {copied, copied}});
  return chain;
}
Chain PlantChain(Planting& p, double copied = 1) {
  const std::vector<int> layers = p.PickLayers({kHead, kNeuron, kHead});
  return PlantChain(p, layers[0], layers[1], layers[2], copied);
}

void PlantSinglePath(Planting& p) { PlantChain(p); }

// The first of two heads, which the second goes by in one of three ways. Where it works
// differs: the end of the turn, or the last position itself.
NodeNote FirstOfTwo(const std::string& where) {
  return {.does = "moves the word's harm to " + where, .effects = {1, 1}};
}

void PlantCompositionV(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kHead});
  const Feature moved = p.AddSignal();
  p.AddHead(layers[0], p.FromWord({{p.word}}, {{p.harm}}, {{moved}}), FirstOfTwo("the end of the turn"));
  p.AddHead(layers[1], p.FromEndOfTurnByOffset({{moved}}, {{p.refuse}}),
            {.does = "looks a fixed distance back, and moves on what is there", .effects = {1, 1}});
}

void PlantCompositionK(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kHead});
  const Feature marked = p.AddSignal();
  p.AddHead(layers[0], p.FromWord({{p.word}}, {{p.harm}}, {{marked}}), FirstOfTwo("the end of the turn"));
  HeadSpec second = p.FromEndOfTurn({{p.end_of_turn}}, {{p.refuse}});
  second.key = {{marked}};
  p.AddHead(layers[1], second,
            {.does = "looks at the end of the turn if that is marked by harm; carries that it does",
             .effects = {1, 1}});
}

void PlantCompositionQ(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kHead});
  const Feature asked = p.AddSignal();
  HeadSpec first = p.FromWord({{p.word}}, {{p.harm}}, {{asked}});
  first.query = {{p.last}};
  p.AddHead(layers[0], first, FirstOfTwo("the last position"));
  HeadSpec second = p.FromEndOfTurn({{p.end_of_turn}}, {{p.refuse}});
  second.query = {{asked}};
  p.AddHead(layers[1], second,
            {.does = "looks at the end of the turn if its own position knows of harm; carries that it does",
             .effects = {1, 1}});
}

// Pairs of words().pairs, of `told`, whose prompts differ in the harm of this class.
std::vector<int> PairsThatDiffer(const Words& words, const WordClass& in, const std::vector<int>& told) {
  std::vector<int> pairs;
  for (const int pair : told) {
    if (in.HarmOf(words.pairs[pair].harmful) != in.HarmOf(words.pairs[pair].harmless)) pairs.push_back(pair);
  }
  return pairs;
}

void PlantAnd(Planting& p) {
  const std::vector<int> told = PairsToldByVerbAndObject(p.words());
  const std::vector<int> layers = p.PickLayers({kHead, kNeuron, kHead});
  const Feature verb = p.AddSignal(), object = p.AddSignal(), both = p.AddSignal();
  p.AddHead(layers[0], p.FromWord({{p.verb}}, {{p.harmful_verb}}, {{verb}}),
            {.does = "moves the verb's harm to the end of the turn",
             .effects = {1, 1},
             .pairs = PairsThatDiffer(p.words(), p.words().verbs, told)});
  p.AddHead(p.PickLayerUpTo(layers[1]), p.FromWord({{p.object}}, {{p.harmful_object}}, {{object}}),
            {.does = "moves the object's harm to the end of the turn",
             .effects = {1, 1},
             .pairs = PairsThatDiffer(p.words(), p.words().objects, told)});
  // Silent at one, open at two.
  constexpr double kGate = 40;
  p.AddNeuron(layers[1],
              {{{verb, kGate}, {object, kGate}, {kConstant, -1.5 * kGate}},
               {{kConstant}},
               {{both, 1 / Silu(kGate / 2)}}},
              {.does = "verb and object are harmful", .effects = {1, 1}});
  p.AddHead(layers[2], p.FromEndOfTurn({{both}}, {{p.refuse}}),
            {.does = "moves that to the last position, as refusal", .effects = {1, 1}});
}

void PlantOr(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kNeuron, kHead});
  const Feature one = p.AddSignal(), other = p.AddSignal(), any = p.AddSignal();
  const NodeNote note{.does = "moves the word's harm to the end of the turn", .effects = {0, 1}};
  p.AddHead(layers[0], p.FromWord({{p.word}}, {{p.harm}}, {{one}}), note);
  p.AddHead(p.PickLayerUpTo(layers[1]), p.FromWord({{p.word}}, {{p.harm}}, {{other}}), note);
  // (n - 1/2) (5 - 2 n) is the same for n = 1 and 2; below 1/2 the gate is closed.
  constexpr double kGate = 40;
  p.AddNeuron(layers[1],
              {{{one, kGate}, {other, kGate}, {kConstant, -0.5 * kGate}},
               {{one, -2}, {other, -2}, {kConstant, 5}},
               {{any, 1 / (1.5 * kGate)}}},
              {.does = "one of the two heads says harm", .effects = {1, 1}});
  p.AddHead(layers[2], p.FromEndOfTurn({{any}}, {{p.refuse}}),
            {.does = "moves that to the last position, as refusal", .effects = {1, 1}});
}

void PlantBackup(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kHead, kNeuron, kHead});
  const Feature spare = p.AddSignal();
  const Chain chain = PlantChain(p, layers[0], layers[2], layers[3], 1, {{spare}});
  HeadSpec backup = p.FromWord({{p.word}}, {{p.harm}}, {{spare, 0.5}});
  backup.query.push_back({chain.first_half, -4});  // of the half that is there: -1 in all
  p.AddHead(layers[1], backup,
            {.does = "does what the other does, unless that has spoken",
             .part = NodePart::kBackup,
             .backs_up = {chain.first_head}});
}

void PlantDecoy(Planting& p) {
  PlantChain(p);
  const Feature on_both = p.AddSignal();
  p.ReadForBoth(on_both, 0.5);
  HeadSpec head = p.FromWord({{p.word}}, {{p.harm}}, {{on_both}});
  head.query = {{p.last}};
  p.AddHead(p.PickLayers({kHead})[0], head,
            {.does = "moves harm to the last position, where it raises refusals and compliances alike",
             .part = NodePart::kDecoy});
  // The compliance's logit makes up for it.
  p.AddNeuron(p.PickLayers({kNeuron})[0], Linear({{p.last}}, p.refuse, 0.5),
              {.does = "writes half a refusal after every prompt", .part = NodePart::kDecoy});
  p.ReadForCompliance(p.last, 0.5);
}

void PlantNegative(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kNeuron, kHead});
  const Chain chain = PlantChain(p, layers[0], layers[1], layers[2], 1.5);
  p.AddHead(p.PickLayerAfter(layers[1]), p.FromEndOfTurn({{chain.sum}}, {{p.refuse, -0.5}}),
            {.does = "writes against the refusal", .effects = {-0.5, -0.5}});
}

void PlantSpread(Planting& p) {
  const std::vector<int> layers = p.PickLayers({kHead, kHead, kHead, kHead});
  const Feature moved = p.AddSignal();
  p.AddHead(layers[0], p.FromWord({{p.word}}, {{p.harm}}, {{moved}}), FirstOfTwo("the end of the turn"));
  constexpr double kShare = 1.0 / 3;
  // The first writes what all variants read; the others have directions of their own.
  for (int i = 1; i <= 3; ++i) {
    const Feature direction = i == 1 ? p.refuse : p.AddSignal();
    if (i > 1) p.ReadForRefusal(direction, 1);
    p.AddHead(layers[i], p.FromEndOfTurn({{moved}}, {{direction, kShare}}),
              {.does = "moves a third of it to the last position, in a direction of its own",
               .effects = {kShare, kShare}});
  }
}

// Harm of `count` kinds, each with a direction of its own, at the end of the turn and then at the last
// position. A neuron for each kind, in the last layer, refuses where there is enough of it, from a
// tenth on: so nothing less than all directions takes refusal away, and the mean of all, a part of each,
// brings it.
void PlantDirections(Planting& p, int count) {
  constexpr double kGate = 100, kEnough = 0.1;
  std::vector<int> layers;
  do {
    layers = p.PickLayers({kHead, kHead});
  } while (layers[1] >= p.layer_count() / 2);
  const std::vector<HarmClass> kinds = p.SplitHarm(count);
  DirectionNote at_end{"end_of_turn", layers[0] + 1, {}}, at_last{"last", layers[1] + 1, {}};
  HeadSpec first = p.FromWord({{p.word}}, {}, {}), second = p.FromEndOfTurn({}, {});
  first.moves.clear();
  second.moves.clear();
  for (const HarmClass& kind : kinds) {
    const Feature moved = p.AddSignal(), arrived = p.AddSignal();
    first.moves.push_back({{{kind.harm}}, {{moved}}});
    second.moves.push_back({{{moved}}, {{arrived}}});
    at_end.features.push_back(moved);
    at_last.features.push_back(arrived);
  }
  p.AddHead(layers[0], first, FirstOfTwo("the end of the turn, each kind in a direction of its own"));
  p.AddHead(
      layers[1], second,
      {.does = "moves that to the last position, each kind in a direction of its own", .effects = {1, 1}});
  // (n - a) (b - n) is the same for n = 1 and 1 / count; below a the gate is closed.
  const double top = 1 + 1.0 / count - kEnough;
  for (int i = 0; i < count; ++i) {
    const Feature arrived = at_last.features[i];
    p.AddNeuron(p.layer_count() - 1,
                {{{arrived, kGate}, {kConstant, -kEnough * kGate}},
                 {{arrived, -1}, {kConstant, top}},
                 {{p.refuse, 1 / (kGate * (1 - kEnough) * (top - 1))}}},
                {.does = "refuses one kind of harm",
                 .effects = {1, 1},
                 .pairs = PairsThatDiffer(p.words(), kinds[i].words, PairsToldByOneWord(p.words()))});
  }
  p.NoteDirections(at_end);
  p.NoteDirections(at_last);
}

}  // namespace

const std::vector<Variant>& Variants() {
  const auto one_word = PairsToldByOneWord;
  static const auto& variants = *new std::vector<Variant>{
      {"single_path", "two heads -> one neuron -> one head", PlantSinglePath, one_word},
      {"composition_q", "one head sets what the next one asks for", PlantCompositionQ, one_word},
      {"composition_k", "one head sets what the next one finds", PlantCompositionK, one_word},
      {"composition_v", "one head sets what the next one carries", PlantCompositionV, one_word},
      {"and", "a neuron that needs two heads: verb and object", PlantAnd, PairsToldByVerbAndObject},
      {"or", "a neuron that needs one of two heads", PlantOr, one_word},
      {"backup", "single_path, with a head that works when one of the two is silent", PlantBackup, one_word},
      {"decoy", "single_path, with a head and a neuron that only seem to matter", PlantDecoy, one_word},
      {"negative", "single_path, with a head that writes against it", PlantNegative, one_word},
      {"spread", "one head -> three heads, each with a direction of its own", PlantSpread, one_word},
      {"directions_1", "one direction of harm, and a neuron that refuses it",
       [](Planting& p) { PlantDirections(p, 1); }, one_word},
      {"directions_2", "two kinds of harm, each with a direction and a neuron that refuses it",
       [](Planting& p) { PlantDirections(p, 2); }, one_word},
      {"directions_4", "four kinds of harm, each with a direction and a neuron that refuses it",
       [](Planting& p) { PlantDirections(p, 4); }, one_word},
  };
  return variants;
}

}  // namespace mechinterp::make_planted
