#ifndef CLIENTS_EXPERIMENTS_DIRECTION_VECTORS_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_VECTORS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace mechinterp {

// Vectors of the residual stream, [d_model]. Pure functions, sums in double precision.

double Dot(absl::Span<const float> a, absl::Span<const float> b);
double Norm(absl::Span<const float> v);
std::vector<float> Difference(absl::Span<const float> a, absl::Span<const float> b);
std::vector<float> Scaled(absl::Span<const float> v, double factor);
// Zeros where v is zero.
std::vector<float> UnitOf(absl::Span<const float> v);
// Of the angle between them; 0 where one is zero.
double Cosine(absl::Span<const float> a, absl::Span<const float> b);

// What of `v` lies in the span of these orthonormal vectors.
std::vector<float> PartWithin(absl::Span<const float> v, absl::Span<const std::vector<float>> basis);
// Of the squares of `v`, the share that lies there. In [0, 1].
double ShareWithin(absl::Span<const float> v, absl::Span<const std::vector<float>> basis);

// Uniform on the sphere, by `seed`; the same on every platform.
std::vector<float> RandomUnit(size_t size, uint64_t seed);

// Principal components of rows that are not centred: orthonormal vectors, those with most of the
// rows' squares in them first. As many as were asked for, or as the rows span.
struct PrincipalComponents {
  std::vector<std::vector<float>> directions;
  std::vector<double> shares;  // of the rows' squares, of each
};
// By the rows' products with each other (Jacobi 1846), so for up to some hundred rows.
PrincipalComponents FindPrincipalComponents(absl::Span<const std::vector<float>> rows, int count);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_VECTORS_H_
