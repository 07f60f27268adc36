#include "data/make_planted/dense_matrix.h"

#include <cmath>

namespace mechinterp::make_planted {

DenseMatrix Multiply(const DenseMatrix& a, const DenseMatrix& b) {
  DenseMatrix product(a.rows, b.columns);
  for (int i = 0; i < a.rows; ++i) {
    for (int k = 0; k < a.columns; ++k) {
      if (a(i, k) == 0) continue;  // most of what is written in features is zero
      for (int j = 0; j < b.columns; ++j) product(i, j) += a(i, k) * b(k, j);
    }
  }
  return product;
}

DenseMatrix MultiplyTransposed(const DenseMatrix& a, const DenseMatrix& b) {
  DenseMatrix transposed(b.columns, b.rows);
  for (int i = 0; i < b.rows; ++i) {
    for (int j = 0; j < b.columns; ++j) transposed(j, i) = b(i, j);
  }
  return Multiply(a, transposed);
}

DenseMatrix RandomRotation(int size, Random& random) {
  DenseMatrix rotation(size, size);
  for (double& value : rotation.values) value = random.Normal();
  // Twice: what one pass leaves of the earlier rows, a second one takes away.
  for (int i = 0; i < size; ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (int j = 0; j < i; ++j) {
        double overlap = 0;
        for (int k = 0; k < size; ++k) overlap += rotation(i, k) * rotation(j, k);
        for (int k = 0; k < size; ++k) rotation(i, k) -= overlap * rotation(j, k);
      }
      double squares = 0;
      for (int k = 0; k < size; ++k) squares += rotation(i, k) * rotation(i, k);
      for (int k = 0; k < size; ++k) rotation(i, k) /= std::sqrt(squares);
    }
  }
  return rotation;
}

}  // namespace mechinterp::make_planted
