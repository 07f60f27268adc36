#include "clients/experiments/circuit_statistics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace mechinterp {
namespace {

constexpr size_t kMostExact = 20;
constexpr int kDraws = 20'000;

// Of all assignments of signs, those whose sum is at least so large in size. In the order of Gray's
// code, in which each differs from the one before by one sign.
uint64_t CountExtreme(absl::Span<const double> samples, double least) {
  double sum = std::accumulate(samples.begin(), samples.end(), 0.0);
  std::vector<double> signs(samples.size(), 1);
  uint64_t extreme = 1;
  for (uint64_t step = 1; step < uint64_t{1} << samples.size(); ++step) {
    const int flipped = std::countr_zero(step);
    signs[flipped] = -signs[flipped];
    sum += 2 * signs[flipped] * samples[flipped];
    extreme += std::abs(sum) >= least;
  }
  return extreme;
}

std::vector<double> Ranks(absl::Span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + end - 1) / 2;
    begin = end;
  }
  return ranks;
}

}  // namespace

double SignFlipPValue(absl::Span<const double> samples, uint64_t seed) {
  if (samples.empty()) return 1;
  const double observed = std::abs(std::accumulate(samples.begin(), samples.end(), 0.0));
  double size = 0;
  for (const double sample : samples) size += std::abs(sample);
  const double least = observed - 1e-9 * size;  // of equal sums, in another order
  if (samples.size() <= kMostExact) {
    return static_cast<double>(CountExtreme(samples, least)) /
           static_cast<double>(uint64_t{1} << samples.size());
  }
  std::mt19937_64 random(seed);
  int extreme = 1;
  for (int draw = 0; draw < kDraws; ++draw) {
    double sum = 0;
    uint64_t bits = 0;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (i % 64 == 0) bits = random();
      sum += (bits >> i % 64 & 1) != 0 ? -samples[i] : samples[i];
    }
    extreme += std::abs(sum) >= least;
  }
  return static_cast<double>(extreme) / (kDraws + 1);
}

std::vector<double> HolmAdjusted(absl::Span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    largest = std::max(largest, static_cast<double>(order.size() - rank) * p_values[order[rank]]);
    adjusted[order[rank]] = std::min(1.0, largest);
  }
  return adjusted;
}

double SpearmanCorrelation(absl::Span<const double> a, absl::Span<const double> b) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (a.size() < 2 || a.size() != b.size()) return kNone;
  const std::vector<double> x = Ranks(a), y = Ranks(b);
  const double mean = static_cast<double>(a.size() - 1) / 2;
  double xy = 0, xx = 0, yy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xy += (x[i] - mean) * (y[i] - mean);
    xx += (x[i] - mean) * (x[i] - mean);
    yy += (y[i] - mean) * (y[i] - mean);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : kNone;
}

std::vector<int> LargestBySize(absl::Span<const double> values, int count) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::min(count, static_cast<int>(order.size()));
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int a, int b) {
    const double x = std::abs(values[a]), y = std::abs(values[b]);
    return x != y ? x > y : a < b;
  });
  order.resize(count);
  return order;
}

double JaccardIndex(absl::Span<const int> a, absl::Span<const int> b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    if (a[i] == b[j])
      ++both, ++i, ++j;
    else if (a[i] < b[j])
      ++i;
    else
      ++j;
  }
  const size_t either = a.size() + b.size() - both;
  return either == 0 ? 1 : static_cast<double>(both) / static_cast<double>(either);
}

double TrapezoidArea(absl::Span<const double> shares, absl::Span<const double> values) {
  double area = 0;
  for (size_t i = 1; i < shares.size(); ++i) {
    area += (shares[i] - shares[i - 1]) * (values[i] + values[i - 1]) / 2;
  }
  return area;
}

}  // namespace mechinterp
