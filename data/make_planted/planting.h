#ifndef DATA_MAKE_PLANTED_PLANTING_H_
#define DATA_MAKE_PLANTED_PLANTING_H_

#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "data/make_planted/answers.h"
#include "data/make_planted/circuit_builder.h"
#include "data/make_planted/words.h"

namespace mechinterp::make_planted {

// What patching one node alone does to the difference of logits, as a share of the way to the
// other prompt: in the harmful run, and in the harmless one.
struct Effects {
  double noising = 0;
  double denoising = 0;
};

enum class NodePart {
  kCircuit,
  kBackup,  // works when others are silent
  kDecoy,   // seems to matter, and does not
};

// What truth.json says of a node beyond its place.
struct NodeNote {
  std::string does;
  Effects effects = {};
  NodePart part = NodePart::kCircuit;
  std::vector<std::string> backs_up = {};  // names of nodes
  std::vector<int> pairs = {};             // where it has its effects; empty: in all
};

// The directions that tell harm at one position, from this layer's input on.
struct DirectionNote {
  std::string position;  // "last", "end_of_turn"
  int first_layer = 0;
  std::vector<Feature> features;
};

// Harmful words that have a harm of their own.
struct HarmClass {
  Feature harm;
  WordClass words;
};

// A planted model in the making: what the circuits of all variants have in common. Of a prompt
// in the chat template three places matter: a word of the request; the token that ends the
// user's turn; and the last one, after which the answer begins. There the model complies,
// unless `refuse` is more than 1/2. Not thread-safe.
class Planting {
 public:
  // All must outlive it.
  Planting(const Words& words, const Answers& answers, CircuitBuilder& builder, Random& random);

  // What tokens are.
  Feature end_of_turn, last;       // of the template
  Feature word, harm;              // of the words that alone decide: their level, and 1 or 0
  Feature verb, harmful_verb;      // of Words::verbs
  Feature object, harmful_object;  // of Words::objects
  Feature refuse;                  // 1 is a refusal

  // Something that is 1 where the prompt is harmful, or a share of that.
  Feature AddSignal() { return builder_.AddFeature(/*tells=*/true); }
  // Divides the harmful ones of the decisive words among so many classes.
  std::vector<HarmClass> SplitHarm(int count);
  // Logits of first tokens of answers: so much for what the feature is.
  void ReadForRefusal(Feature feature, double share_of_refusal);
  void ReadForCompliance(Feature feature, double share_of_refusal);
  void ReadForBoth(Feature feature, double share_of_refusal);

  // Layers for components of which each must see what the one before it wrote, at random.
  std::vector<int> PickLayers(std::initializer_list<NodeKind> chain);
  // Any layer up to this one, this one included; any after it.
  int PickLayerUpTo(int last) { return static_cast<int>(random_.Index(last + 1)); }
  int PickLayerAfter(int before) {
    return before + 1 + static_cast<int>(random_.Index(builder_.shape().layer_count() - 1 - before));
  }

  // Plant a component somewhere in a layer. Their names.
  std::string AddHead(int layer, const HeadSpec& spec, NodeNote note);
  std::string AddNeuron(int layer, const NeuronSpec& spec, NodeNote note);

  // A head that works at the end of the user's turn, and one at the last position that looks there.
  HeadSpec FromWord(Terms key, Terms reads, Terms writes) const;
  HeadSpec FromEndOfTurn(Terms reads, Terms writes) const;
  // The same by distance instead of by what stands there.
  HeadSpec FromEndOfTurnByOffset(Terms reads, Terms writes) const;

  void NoteDirections(DirectionNote note) { directions_.push_back(std::move(note)); }

  const Words& words() const { return words_; }
  const std::vector<DirectionNote>& directions() const { return directions_; }
  int layer_count() const { return builder_.shape().layer_count(); }
  const std::vector<NodeNote>& notes() const { return notes_; }  // of builder's nodes

 private:
  void EmbedClass(const WordClass& words, Feature level, Feature harmful);

  const Words& words_;
  const Answers& answers_;
  CircuitBuilder& builder_;
  Random& random_;
  int end_to_last_ = 0;
  std::vector<NodeNote> notes_;
  std::vector<DirectionNote> directions_;
};

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_PLANTING_H_
