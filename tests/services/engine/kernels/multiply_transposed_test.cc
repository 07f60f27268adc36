#include "services/engine/kernels/multiply_transposed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/parallel.h"
#include "tests/services/engine/kernels/products.h"

namespace mechinterp::engine::kernels {
namespace {

// A row's operands for each weight [out, in], as the header defines them.
std::vector<float> OperandsOf(const float* dy, const Unscaled& w, int64_t out, NumberFormat compute) {
  const int64_t in = static_cast<int64_t>(w.values.size()) / out;
  std::vector<float> operands(w.values.size());
  float largest = 0;
  for (int64_t i = 0; i < out * in; ++i) {
    operands[i] = dy[i / in] * w.scales[i];
    if (std::isfinite(operands[i])) largest = std::max(largest, std::abs(operands[i]));
  }
  const int exponent =
      compute == NumberFormat::kFloat16 && largest > 0 ? std::clamp(14 - std::ilogb(largest), -126, 126) : 0;
  for (float& operand : operands) {
    operand = std::ldexp(Rounded(compute, std::ldexp(operand, exponent)), -exponent);
  }
  return operands;
}

class TransposedMultiplication : public testing::TestWithParam<Kind> {};

TEST_P(TransposedMultiplication, IsTheProductWithTheTransposedMatrix) {
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> dy = Random(n * out, 1), w = Random(out * in, 2);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
    const Unscaled unscaled = UnscaledOf(kind, out, in, w);
    std::vector<double> sums(n * in), magnitudes(n * in);
    for (int64_t r = 0; r < n; ++r) {
      const std::vector<float> operands = OperandsOf(&dy[r * out], unscaled, out, kind.compute);
      for (int64_t i = 0; i < out * in; ++i) {
        const double product = double{operands[i]} * unscaled.values[i];
        sums[r * in + i % in] += product;
        magnitudes[r * in + i % in] += std::abs(product);
      }
    }
    std::vector<float> dx(n * in);
    OnEveryInstructionSet([&, n = n, in = in, out = out](const std::string& target) {
      MultiplyTransposed(dy.data(), n, matrix, dx.data());
      for (int64_t i = 0; i < n * in; ++i) {
        ASSERT_NEAR(dx[i], sums[i], 1e-6 * magnitudes[i] + 1e-7)
            << i / in << "," << i % in << " of " << n << "x" << in << "x" << out << target;
      }
    });
  }
}

TEST_P(TransposedMultiplication, ARowsBitsDependOnNeitherTheOtherRowsNorTheThreads) {
  const int threads = ThreadCount();
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> dy = Random(n * out, 3);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 4));
    std::vector<float> together(n * in), alone(in);
    OnEveryInstructionSet([&, n = n, in = in, out = out](const std::string& target) {
      SetThreadCount(2);
      MultiplyTransposed(dy.data(), n, matrix, together.data());
      SetThreadCount(1);
      for (int64_t r = 0; r < n; ++r) {
        MultiplyTransposed(dy.data() + r * out, 1, matrix, alone.data());
        ASSERT_EQ(alone, std::vector<float>(together.begin() + r * in, together.begin() + (r + 1) * in))
            << target;
      }
    });
  }
  SetThreadCount(threads);
}

// A row as the header defines it. add_panel(x, values, total) is the total with a panel's products.
template <typename AddPanel>
std::vector<float> RowByPanels(const std::vector<float>& operands, const Unscaled& w, int64_t out,
                               const AddPanel& add_panel) {
  const int64_t in = static_cast<int64_t>(w.values.size()) / out;
  std::vector<float> row(in);
  for (int64_t k = 0; k < in; ++k) {
    for (int64_t first = 0; first < out; first += kPanelOutputs) {
      std::vector<float> x(kPanelOutputs), values(kPanelOutputs);
      for (int64_t o = first; o < std::min(out, first + kPanelOutputs); ++o) {
        x[o - first] = operands[o * in + k];
        values[o - first] = w.values[o * in + k];
      }
      row[k] = add_panel(x, values, row[k]);
    }
  }
  return row;
}

float AddFused(const std::vector<float>& x, const std::vector<float>& values, float total) {
  for (int half : {0, 32}) {
    float sum = 0;
    for (int i = half; i < half + 32; ++i) sum = std::fma(x[i], values[i], sum);
    total += sum;
  }
  return total;
}

float AddInTiles(const std::vector<float>& x, const std::vector<float>& values, float total) {
  float sum = 0;
  for (int tile : {0, 32}) {
    float even = 0, odd = 0;
    for (int i = tile; i < tile + 32; i += 2) {
      even = std::fma(x[i], values[i], even);
      odd = std::fma(x[i + 1], values[i + 1], odd);
    }
    sum += even + odd;
  }
  return total + sum;
}

// So every machine with fused multiply-add, of whatever kind, gives the same bits.
TEST_P(TransposedMultiplication, InFp32IsBitForBitTheChainOfFusedMultiplyAddsThatTheHeaderPromises) {
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> dy = Random(n * out, 5), w = Random(out * in, 6);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
    const Unscaled unscaled = UnscaledOf(kind, out, in, w);
    std::vector<float> expected, dx(n * in);
    for (int64_t r = 0; r < n; ++r) {
      const std::vector<float> row =
          RowByPanels(OperandsOf(&dy[r * out], unscaled, out, kind.compute), unscaled, out, AddFused);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    OnEveryInstructionSet([&, n = n](const std::string& target) {
      const bool in_fp32 = kind.compute != NumberFormat::kBFloat16 || !MultipliesBFloat16();
      if (!in_fp32 || !FusesMultiplyAdd(target)) return;
      MultiplyTransposed(dy.data(), n, matrix, dx.data());
      ASSERT_EQ(dx, expected) << target;
    });
  }
}

TEST_P(TransposedMultiplication, OutputsThatAreLeftOutCountAsZeros) {
  const Kind& kind = GetParam();
  const int64_t n = 5, in = 160, out = 330;
  const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 7));
  const std::pair<int64_t, int64_t> ranges[] = {{0, 330}, {0, 1}, {64, 128}, {16, 32}, {61, 203}, {320, 330}};
  for (const auto& [begin, end] : ranges) {
    // What is not in the range must not be read.
    std::vector<float> dy(n * out, std::numeric_limits<float>::quiet_NaN()), zeros(n * out);
    const std::vector<float> values = Random(n * out, 8);
    for (int64_t i = 0; i < n * out; ++i) {
      if (i % out >= begin && i % out < end) dy[i] = zeros[i] = values[i];
    }
    OnEveryInstructionSet([&, begin = begin, end = end](const std::string& target) {
      std::vector<float> expected(n * in), dx(n * in);
      MultiplyTransposed(zeros.data(), n, matrix, expected.data());
      const TransposedProduct product{&matrix, dy.data() + begin, out, {begin, end}};
      MultiplyTransposed(n, std::span(&product, 1), dx.data());
      ASSERT_EQ(dx, expected) << begin << " to " << end << target;
    });
  }
}

TEST_P(TransposedMultiplication, WhatIsNotFiniteStaysInItsRow) {
  const Kind& kind = GetParam();
  const int64_t n = 7, in = 72, out = 70;
  std::vector<float> dy = Random(n * out, 9);
  const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 10));
  OnEveryInstructionSet([&](const std::string& target) {
    std::vector<float> before(n * in), dx(n * in), changed = dy;
    MultiplyTransposed(dy.data(), n, matrix, before.data());
    changed[2 * out + 69] = std::numeric_limits<float>::quiet_NaN();
    changed[5 * out + 3] = -std::numeric_limits<float>::infinity();
    MultiplyTransposed(changed.data(), n, matrix, dx.data());
    for (int64_t i = 0; i < n * in; ++i) {
      if (i / in == 2 || i / in == 5) {
        ASSERT_FALSE(std::isfinite(dx[i])) << target;
      } else {
        ASSERT_EQ(dx[i], before[i]) << target;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Formats, TransposedMultiplication, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(TransposedMultiplicationInTiles, IsBitForBitTheOrderThatTheHeaderPromises) {
  if (UnitInUse() != BFloat16Unit::kTiles) GTEST_SKIP() << "this machine has none";
  for (const Kind& kind : kKinds) {
    if (kind.compute != NumberFormat::kBFloat16) continue;
    for (const auto& [n, in, out] : kSizes) {
      const std::vector<float> dy = Random(n * out, 11), w = Random(out * in, 12);
      const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
      const Unscaled unscaled = UnscaledOf(kind, out, in, w);
      std::vector<float> dx(n * in);
      MultiplyTransposed(dy.data(), n, matrix, dx.data());
      for (int64_t r = 0; r < n; ++r) {
        const std::vector<float> operands = OperandsOf(&dy[r * out], unscaled, out, kind.compute);
        ASSERT_EQ(std::vector<float>(dx.begin() + r * in, dx.begin() + (r + 1) * in),
                  RowByPanels(operands, unscaled, out, AddInTiles))
            << kind.name << n << "x" << in << "x" << out;
      }
    }
  }
}

TEST(TransposedProducts, AreAddedOneAfterTheOther) {
  const int64_t n = 9, in = 144;
  const int64_t outs[] = {64, 40, 130, 7};
  std::vector<PackedMatrix> matrices;
  matrices.push_back(Pack(NumberFormat::kNf4, NumberFormat::kBFloat16, outs[0], in, Random(outs[0] * in, 1)));
  matrices.push_back(Pack(NumberFormat::kNf4, NumberFormat::kBFloat16, outs[1], in, Random(outs[1] * in, 2)));
  matrices.push_back(Pack(NumberFormat::kInt8, NumberFormat::kFloat32, outs[2], in, Random(outs[2] * in, 3)));
  matrices.push_back(
      Pack(NumberFormat::kFloat16, NumberFormat::kFloat16, outs[3], in, Random(outs[3] * in, 4)));
  OnEveryInstructionSet([&](const std::string& target) {
    std::vector<std::vector<float>> dys;
    std::vector<TransposedProduct> products;
    std::vector<float> expected(n * in), part(n * in), dx(n * in);
    for (size_t i = 0; i < matrices.size(); ++i) {
      dys.push_back(Random(n * outs[i], static_cast<unsigned>(5 + i)));
      products.push_back({&matrices[i], dys[i].data(), outs[i]});
      MultiplyTransposed(dys[i].data(), n, matrices[i], part.data());
      for (int64_t j = 0; j < n * in; ++j) expected[j] = i == 0 ? part[j] : expected[j] + part[j];
    }
    MultiplyTransposed(n, products, dx.data());
    ASSERT_EQ(dx, expected) << target;
  });
}

// Rows of any size keep fp16's precision, and their neighbours keep their bits.
TEST(TransposedMultiplicationInFloat16, NothingFiniteOverflowsOrVanishes) {
  constexpr int64_t n = 5, in = 128, out = 70;
  for (NumberFormat format : {NumberFormat::kFloat16, NumberFormat::kNf4}) {
    const Kind kind{format, NumberFormat::kFloat16, ""};
    std::vector<float> dy = Random(n * out, 13), w = Random(out * in, 14);
    const PackedMatrix matrix = Pack(format, NumberFormat::kFloat16, out, in, w);
    const Unscaled unscaled = UnscaledOf(kind, out, in, w);
    std::vector<float> before(n * in), dx(n * in);
    MultiplyTransposed(dy.data(), n, matrix, before.data());
    const float factors[n] = {1, 1e-12f, 1e-30f, 1e9f, 1e34f};
    for (int64_t i = 0; i < n * out; ++i) dy[i] *= factors[i / out];
    MultiplyTransposed(dy.data(), n, matrix, dx.data());
    EXPECT_TRUE(std::equal(dx.begin(), dx.begin() + in, before.begin()));
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t k = 0; k < in; ++k) {
        double sum = 0, magnitude = 0;
        for (int64_t o = 0; o < out; ++o) {
          const double product =
              double{dy[r * out + o]} * unscaled.values[o * in + k] * unscaled.scales[o * in + k];
          sum += product;
          magnitude += std::abs(product);
        }
        EXPECT_NEAR(dx[r * in + k], sum, 1e-3 * magnitude) << r << " " << k;
      }
    }
  }
}

}  // namespace
}  // namespace mechinterp::engine::kernels
