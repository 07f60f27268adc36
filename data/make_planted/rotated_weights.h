#ifndef DATA_MAKE_PLANTED_ROTATED_WEIGHTS_H_
#define DATA_MAKE_PLANTED_ROTATED_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "data/make_planted/circuit_builder.h"
#include "data/make_planted/dense_matrix.h"

namespace mechinterp::make_planted {

// How large the constant feature is, against 1 for others. What a block writes changes a
// norm's scale by half the square of its length over the square of this: by less than a thousandth.
inline constexpr double kConstantSize = 64;

// A tensor as it goes into the checkpoint.
struct WrittenTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// The weights of a model whose features lie in a random basis: a random rotation of the
// residual stream, and random positive gains, which the matrices behind the norms make up for.
struct RotatedModel {
  std::vector<WrittenTensor> tensors;
  DenseMatrix basis;  // row f: the direction of feature f
};
RotatedModel RotateWeights(const CircuitBuilder& builder, Random& random);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_ROTATED_WEIGHTS_H_
