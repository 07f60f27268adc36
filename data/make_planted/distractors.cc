#include "data/make_planted/distractors.h"

#include <cmath>

namespace mechinterp::make_planted {
namespace {

// Sizes of what a layer's heads write together, and its neurons, against 1 for the circuit's
// features; and of the answer's trace in what all layers write.
constexpr double kLayerOutput = 0.8, kTrace = 0.004;
// What distractors read of each other's: in all, whatever has been written so far. Neurons
// multiply two such readings, which would grow from layer to layer if it were 1.
constexpr double kReadOfOthers = 0.3;
// Deviation of the logits that identities alone make.
constexpr double kLogitDeviation = 0.5;
// A distractor's query against something that is 1 where it should look.
constexpr double kMildSharpness = 8;
// One reading in so many is of a feature of the circuit too.
constexpr int kCircuitReaders = 4;

class Distractors {
 public:
  Distractors(const DistractorPlan& plan, CircuitBuilder& builder, Random& random)
      : plan_(plan), builder_(builder), random_(random), shape_(builder.shape()) {
    const int free = shape_.d_model - builder.feature_count();
    identities_begin_ = builder.feature_count();
    unread_begin_ = identities_begin_ + free / 2;
    for (Feature feature = 0; feature < builder.feature_count(); ++feature) {
      if (builder.tells(feature)) telling_.push_back(feature);
    }
  }

  void AddIdentities() {
    const int count = unread_begin_ - identities_begin_;
    for (int token = 0; token < shape_.vocabulary_size; ++token) {
      std::vector<double> identity(count);
      double squares = 0;
      for (double& value : identity) {
        value = random_.Normal();
        squares += value * value;
      }
      for (int i = 0; i < count; ++i) {
        builder_.embedding()(token, identities_begin_ + i) = identity[i] / std::sqrt(squares);
        builder_.unembedding()(token, identities_begin_ + i) = kLogitDeviation * random_.Normal();
      }
    }
  }

  void FillLayer(int layer) {
    for (int group = 0; group < shape_.key_value_head_count; ++group) FillGroup(layer, group);
    for (int head = 0; head < shape_.head_count; ++head) {
      if (!builder_.IsPlanted(NodeKind::kHead, layer, head)) FillHead(layer, head);
    }
    for (int neuron = 0; neuron < shape_.d_ff; ++neuron) {
      if (!builder_.IsPlanted(NodeKind::kNeuron, layer, neuron)) FillNeuron(layer, neuron);
    }
  }

 private:
  // A row whose reading has a deviation of about 1.
  void ReadAnything(DenseMatrix& matrix, int row, int layer) {
    ReadIdentity(matrix, row);
    const double deviation = kReadOfOthers / std::sqrt(layer + 1);
    for (int i = unread_begin_; i < shape_.d_model; ++i) matrix(row, i) = deviation * random_.Normal();
    if (random_.Index(kCircuitReaders) == 0) matrix(row, random_.Choose(telling_)) = random_.Normal();
  }
  // A column of what only distractors read, and of the answer's trace: one of so many in a layer.
  void WriteUnread(DenseMatrix& matrix, int column, int columns) {
    const double deviation = kLayerOutput / std::sqrt(columns * (shape_.d_model - unread_begin_));
    for (int i = unread_begin_; i < shape_.d_model; ++i) matrix(i, column) = deviation * random_.Normal();
    matrix(plan_.answer, column) = kTrace / std::sqrt(columns * shape_.layer_count()) * random_.Normal();
  }

  // Keys by identity lie in the fast pairs that offsets do not use: they turn as they would in
  // any model. Values take the dims that are left.
  void FillGroup(int layer, int group) {
    LayerWeights& weights = builder_.layer(layer);
    const int first_row = group * shape_.head_size, pairs = shape_.head_size / 2;
    for (int pair = 2; pair < pairs / 2; ++pair) {
      ReadIdentity(weights.key, first_row + pair);
      ReadIdentity(weights.key, first_row + pair + pairs);
    }
    for (const int dim : builder_.FreeValueDims(layer, group)) {
      ReadAnything(weights.value, first_row + dim, layer);
    }
  }

  void ReadIdentity(DenseMatrix& matrix, int row, double deviation = 1) {
    for (int i = identities_begin_; i < unread_begin_; ++i) matrix(row, i) = deviation * random_.Normal();
  }

  // All dims of the value are written, planted ones too: such a head copies what the circuit
  // copies, to where it is of no use.
  void FillHead(int layer, int head) {
    Attend(layer, head);
    LayerWeights& weights = builder_.layer(layer);
    for (int dim = 0; dim < shape_.head_size; ++dim) {
      WriteUnread(weights.output, head * shape_.head_size + dim, shape_.query_width());
    }
  }

  void Attend(int layer, int head) {
    const Terms always = {{kConstant}};
    switch (random_.Index(4)) {
      case 0:
        return builder_.LookBack(layer, head, static_cast<int>(random_.Index(5)), always, 2 * kMildSharpness);
      case 1:
        return builder_.Rest(layer, head, always, kMildSharpness);
      case 2:
        if (const auto pair = builder_.PairOfKey(layer, builder_.GroupOf(head), plan_.word_key)) {
          return builder_.LookFor(layer, head, *pair, always, kMildSharpness);
        }
        break;
    }
    const int pairs = shape_.head_size / 2;
    for (int pair = 2; pair < pairs / 2; ++pair) {
      for (const int row : {head * shape_.head_size + pair, head * shape_.head_size + pair + pairs}) {
        ReadIdentity(builder_.layer(layer).query, row, std::sqrt(shape_.head_size));
      }
    }
  }

  void FillNeuron(int layer, int neuron) {
    LayerWeights& weights = builder_.layer(layer);
    ReadAnything(weights.gate, neuron, layer);
    ReadAnything(weights.up, neuron, layer);
    WriteUnread(weights.down, neuron, shape_.d_ff);
  }

  const DistractorPlan& plan_;
  CircuitBuilder& builder_;
  Random& random_;
  const engine::ModelConfig shape_;
  int identities_begin_, unread_begin_;
  std::vector<Feature> telling_;
};

}  // namespace

void AddDistractors(const DistractorPlan& plan, CircuitBuilder& builder, Random& random) {
  Distractors distractors(plan, builder, random);
  distractors.AddIdentities();
  for (int layer = 0; layer < builder.shape().layer_count(); ++layer) distractors.FillLayer(layer);
}

}  // namespace mechinterp::make_planted
