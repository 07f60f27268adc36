#include "data/make_planted/rotated_weights.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "services/engine/checkpoint/tensor_table.h"

namespace mechinterp::make_planted {
namespace {

using engine::TensorRole;

// Of the logarithm of gains.
constexpr double kGainDeviation = 0.2;

std::vector<double> RandomGains(int count, Random& random) {
  std::vector<double> gains(count);
  for (double& gain : gains) gain = std::exp(kGainDeviation * random.Normal());
  return gains;
}

class Rotator {
 public:
  Rotator(int width, Random& random)
      : basis_(RandomRotation(width, random)), norm_scale_(kConstantSize / std::sqrt(width)) {}

  // Rows that read features behind a norm with these gains. Axis f of the residual stream's
  // features is row f of the basis.
  DenseMatrix Reading(DenseMatrix weights, const std::vector<double>& gains) const {
    for (int row = 0; row < weights.rows; ++row) weights(row, kConstant) /= kConstantSize;
    DenseMatrix rotated = Multiply(weights, basis_);
    for (int row = 0; row < rotated.rows; ++row) {
      for (int column = 0; column < rotated.columns; ++column) {
        rotated(row, column) *= norm_scale_ / gains[column];
      }
    }
    return rotated;
  }
  // Columns that write features.
  DenseMatrix Writing(const DenseMatrix& weights) const {
    DenseMatrix rotated(weights.rows, weights.columns);
    for (int feature = 0; feature < weights.rows; ++feature) {
      for (int row = 0; row < weights.rows; ++row) {
        const double share = basis_(feature, row);
        for (int column = 0; column < weights.columns; ++column) {
          rotated(row, column) += share * weights(feature, column);
        }
      }
    }
    return rotated;
  }
  DenseMatrix Embedding(DenseMatrix embedding) const {
    for (int token = 0; token < embedding.rows; ++token) embedding(token, kConstant) *= kConstantSize;
    return Multiply(embedding, basis_);
  }
  const DenseMatrix& basis() const { return basis_; }

 private:
  DenseMatrix basis_;
  double norm_scale_;
};

std::vector<float> Rounded(const std::vector<double>& values) {
  return std::vector<float>(values.begin(), values.end());
}

}  // namespace

RotatedModel RotateWeights(const CircuitBuilder& builder, Random& random) {
  const engine::ModelConfig& shape = builder.shape();
  const Rotator rotator(shape.d_model, random);
  std::vector<double> ln1, ln2, ln_final = RandomGains(shape.d_model, random);
  std::vector<WrittenTensor> tensors;
  for (const engine::TensorInfo& info : engine::ModelTensors(shape)) {
    if (info.role == TensorRole::kLn1Gain) ln1 = RandomGains(shape.d_model, random);
    if (info.role == TensorRole::kLn2Gain) ln2 = RandomGains(shape.d_model, random);
    const auto values = [&]() -> std::vector<double> {
      const LayerWeights& layer = builder.layer(std::max(info.layer, 0));
      switch (info.role) {
        case TensorRole::kEmbedding:
          return rotator.Embedding(builder.embedding()).values;
        case TensorRole::kLn1Gain:
          return ln1;
        case TensorRole::kQuery:
          return rotator.Reading(layer.query, ln1).values;
        case TensorRole::kKey:
          return rotator.Reading(layer.key, ln1).values;
        case TensorRole::kValue:
          return rotator.Reading(layer.value, ln1).values;
        case TensorRole::kOutput:
          return rotator.Writing(layer.output).values;
        case TensorRole::kLn2Gain:
          return ln2;
        case TensorRole::kGate:
          return rotator.Reading(layer.gate, ln2).values;
        case TensorRole::kUp:
          return rotator.Reading(layer.up, ln2).values;
        case TensorRole::kDown:
          return rotator.Writing(layer.down).values;
        case TensorRole::kLnFinalGain:
          return ln_final;
        case TensorRole::kUnembedding:
          return rotator.Reading(builder.unembedding(), ln_final).values;
        default:  // biases and head norms, which Llama has not
          return {};
      }
    }();
    tensors.push_back({info.name, info.shape, Rounded(values)});
  }
  return {std::move(tensors), rotator.basis()};
}

}  // namespace mechinterp::make_planted
