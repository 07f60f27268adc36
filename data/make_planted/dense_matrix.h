#ifndef DATA_MAKE_PLANTED_DENSE_MATRIX_H_
#define DATA_MAKE_PLANTED_DENSE_MATRIX_H_

#include <vector>

#include "data/trainer/random.h"

namespace mechinterp::make_planted {

using trainer::Random;

// A small matrix in double precision, row-major: weights are put together here, and rounded
// to fp32 once, when they are written. A plain value.
struct DenseMatrix {
  DenseMatrix() = default;
  DenseMatrix(int row_count, int column_count)
      : rows(row_count), columns(column_count), values(static_cast<size_t>(row_count) * column_count) {}

  double& operator()(int row, int column) { return values[static_cast<size_t>(row) * columns + column]; }
  double operator()(int row, int column) const { return values[static_cast<size_t>(row) * columns + column]; }

  int rows = 0;
  int columns = 0;
  std::vector<double> values;
};

// a b, and a bᵀ.
DenseMatrix Multiply(const DenseMatrix& a, const DenseMatrix& b);
DenseMatrix MultiplyTransposed(const DenseMatrix& a, const DenseMatrix& b);

// An orthonormal matrix, uniformly distributed (Gram-Schmidt on normal values).
DenseMatrix RandomRotation(int size, Random& random);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_DENSE_MATRIX_H_
