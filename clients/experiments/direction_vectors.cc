#include "clients/experiments/direction_vectors.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "services/common/hash.h"

namespace mechinterp {
namespace {

// A symmetric matrix, row by row.
struct SymmetricMatrix {
  size_t size;
  std::vector<double> values;
  double& at(size_t row, size_t column) { return values[row * size + column]; }
};

SymmetricMatrix ProductsOf(absl::Span<const std::vector<float>> rows) {
  SymmetricMatrix products{rows.size(), std::vector<double>(rows.size() * rows.size())};
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t j = 0; j <= i; ++j) products.at(i, j) = products.at(j, i) = Dot(rows[i], rows[j]);
  }
  return products;
}

// Turns axes p and q of the matrix, and of `axes` (its columns are the axes), so that their product
// becomes 0.
void Rotate(size_t p, size_t q, SymmetricMatrix& matrix, SymmetricMatrix& axes) {
  const double angle = 0.5 * std::atan2(2 * matrix.at(p, q), matrix.at(q, q) - matrix.at(p, p));
  const double c = std::cos(angle), s = std::sin(angle);
  for (size_t k = 0; k < matrix.size; ++k) {
    const double kp = matrix.at(k, p), kq = matrix.at(k, q);
    matrix.at(k, p) = c * kp - s * kq;
    matrix.at(k, q) = s * kp + c * kq;
  }
  for (size_t k = 0; k < matrix.size; ++k) {
    const double pk = matrix.at(p, k), qk = matrix.at(q, k);
    matrix.at(p, k) = c * pk - s * qk;
    matrix.at(q, k) = s * pk + c * qk;
    const double ap = axes.at(k, p), aq = axes.at(k, q);
    axes.at(k, p) = c * ap - s * aq;
    axes.at(k, q) = s * ap + c * aq;
  }
}

// Makes the matrix diagonal, and returns its axes.
SymmetricMatrix Diagonalize(SymmetricMatrix& matrix) {
  constexpr int kMostSweeps = 60;
  constexpr double kNegligible = 1e-14;
  SymmetricMatrix axes{matrix.size, std::vector<double>(matrix.values.size())};
  double trace = 0;
  for (size_t i = 0; i < matrix.size; ++i) {
    axes.at(i, i) = 1;
    trace += std::abs(matrix.at(i, i));
  }
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    double largest = 0;
    for (size_t p = 0; p < matrix.size; ++p) {
      for (size_t q = p + 1; q < matrix.size; ++q) {
        largest = std::max(largest, std::abs(matrix.at(p, q)));
        if (std::abs(matrix.at(p, q)) > kNegligible * trace) Rotate(p, q, matrix, axes);
      }
    }
    if (largest <= kNegligible * trace) break;
  }
  return axes;
}

}  // namespace

double Dot(absl::Span<const float> a, absl::Span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) sum += double{a[i]} * b[i];
  return sum;
}

double Norm(absl::Span<const float> v) { return std::sqrt(Dot(v, v)); }

std::vector<float> Difference(absl::Span<const float> a, absl::Span<const float> b) {
  std::vector<float> difference(a.size());
  for (size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return difference;
}

std::vector<float> Scaled(absl::Span<const float> v, double factor) {
  std::vector<float> scaled(v.size());
  for (size_t i = 0; i < v.size(); ++i) scaled[i] = static_cast<float>(v[i] * factor);
  return scaled;
}

std::vector<float> UnitOf(absl::Span<const float> v) {
  const double norm = Norm(v);
  return Scaled(v, norm > 0 ? 1 / norm : 0);
}

double Cosine(absl::Span<const float> a, absl::Span<const float> b) {
  const double norms = Norm(a) * Norm(b);
  return norms > 0 ? Dot(a, b) / norms : 0;
}

std::vector<float> PartWithin(absl::Span<const float> v, absl::Span<const std::vector<float>> basis) {
  std::vector<double> sum(v.size());
  for (const std::vector<float>& direction : basis) {
    const double part = Dot(v, direction);
    for (size_t i = 0; i < v.size(); ++i) sum[i] += part * direction[i];
  }
  return {sum.begin(), sum.end()};
}

double ShareWithin(absl::Span<const float> v, absl::Span<const std::vector<float>> basis) {
  const double all = Dot(v, v);
  double within = 0;
  for (const std::vector<float>& direction : basis) within += std::pow(Dot(v, direction), 2);
  return all > 0 ? std::min(1.0, within / all) : 0;
}

std::vector<float> RandomUnit(size_t size, uint64_t seed) {
  SplitMix64 random(seed);
  const auto uniform = [&] { return (static_cast<double>(random.Next() >> 11) + 0.5) * 0x1p-53; };
  std::vector<float> v(size);
  for (float& value : v) {  // normal (Box and Muller 1958)
    const double radius = std::sqrt(-2 * std::log(uniform()));
    value = static_cast<float>(radius * std::cos(2 * std::numbers::pi * uniform()));
  }
  return UnitOf(v);
}

PrincipalComponents FindPrincipalComponents(absl::Span<const std::vector<float>> rows, int count) {
  PrincipalComponents components;
  SymmetricMatrix products = ProductsOf(rows);
  double all = 0;
  for (size_t i = 0; i < rows.size(); ++i) all += products.at(i, i);
  SymmetricMatrix axes = Diagonalize(products);
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return products.at(a, a) > products.at(b, b); });
  constexpr double kNone = 1e-10;  // of all squares: what rounding leaves where there is nothing
  for (const size_t axis : order) {
    const double squares = products.at(axis, axis);
    if (static_cast<int>(components.directions.size()) == count || !(squares > kNone * all)) break;
    std::vector<double> sum(rows.front().size());
    for (size_t i = 0; i < rows.size(); ++i) {
      for (size_t k = 0; k < sum.size(); ++k) sum[k] += axes.at(i, axis) * rows[i][k];
    }
    components.directions.push_back(UnitOf(std::vector<float>(sum.begin(), sum.end())));
    components.shares.push_back(squares / all);
  }
  return components;
}

}  // namespace mechinterp
