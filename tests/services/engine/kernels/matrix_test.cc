#include "services/engine/kernels/matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "services/common/float16.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/quantize.h"
#include "tests/services/engine/kernels/products.h"

namespace mechinterp::engine::kernels {
namespace {

class Multiplication : public testing::TestWithParam<Kind> {};

TEST_P(Multiplication, IsTheProductWithTheMatrix) {
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> x = Random(n * in, 1), w = Random(out * in, 2);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
    const Unscaled unscaled = UnscaledOf(kind, out, in, w);
    std::vector<float> y(n * out);
    OnEveryInstructionSet([&, n = n, in = in, out = out](const std::string& target) {
      Multiply(x.data(), n, matrix, y.data());
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t o = 0; o < out; ++o) {
          double sum = 0, magnitude = 0;
          for (int64_t k = 0; k < in; ++k) {
            const double product = double{Rounded(kind.compute, x[i * in + k])} *
                                   unscaled.values[o * in + k] * unscaled.scales[o * in + k];
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(y[i * out + o], sum, 1e-6 * magnitude + 1e-7) << n << "x" << in << "x" << out << target;
        }
      }
    });
  }
}

TEST_P(Multiplication, ARowsBitsDependOnNeitherTheOtherRowsNorTheThreads) {
  const int threads = ThreadCount();
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> x = Random(n * in, 3);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 4));
    std::vector<float> together(n * out), alone(out);
    OnEveryInstructionSet([&, n = n, in = in, out = out](const std::string& target) {
      SetThreadCount(2);
      Multiply(x.data(), n, matrix, together.data());
      SetThreadCount(1);
      for (int64_t i = 0; i < n; ++i) {
        Multiply(x.data() + i * in, 1, matrix, alone.data());
        ASSERT_EQ(alone, std::vector<float>(together.begin() + i * out, together.begin() + (i + 1) * out))
            << target;
      }
    });
  }
  SetThreadCount(threads);
}

TEST_P(Multiplication, OfARangeOfOutputsHasTheBitsOfTheWhole) {
  const Kind& kind = GetParam();
  const int64_t n = 70, in = 72, out = 330;
  const std::vector<float> x = Random(n * in, 15);
  const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 16));
  std::vector<float> whole(n * out);
  OnEveryInstructionSet([&](const std::string& target) {
    Multiply(x.data(), n, matrix, whole.data());
    const std::pair<int64_t, int64_t> ranges[] = {{0, 1}, {64, 128}, {16, 32}, {61, 203}, {320, 330}};
    for (const auto& [begin, end] : ranges) {
      const int64_t count = end - begin;
      std::vector<float> part(n * count), rest(n * (out - end));
      const Product products[] = {{&matrix, part.data(), {begin, end}}, {&matrix, rest.data(), {end}}};
      MultiplyEach(x.data(), n, products);
      for (int64_t r = 0; r < n; ++r) {
        const float* row = whole.data() + r * out;
        ASSERT_TRUE(std::equal(row + begin, row + end, part.data() + r * count)) << begin << target;
        ASSERT_TRUE(std::equal(row + end, row + out, rest.data() + r * (out - end))) << begin << target;
      }
    }
  });
}

// Ranges that begin and end within groups, and a row beyond fp16's range.
TEST_P(Multiplication, OfSomeInputsHasTheBitsOfTheProductWithZeros) {
  const Kind& kind = GetParam();
  const int64_t in = 328, out = 130;
  const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, Random(out * in, 16));
  OnEveryInstructionSet([&](const std::string& target) {
    const std::pair<int64_t, int64_t> ranges[] = {{0, 64},   {64, 128}, {16, 16},
                                                  {60, 140}, {320, 8},  {0, 328}};
    for (const int64_t n : {1, 25, 70}) {
      for (const auto& [first, count] : ranges) {
        std::vector<float> x = Random(n * count, 15), zeros(n * in), part(n * out), whole(n * out);
        x[0] *= 1e6f;
        for (int64_t r = 0; r < n; ++r)
          std::copy_n(x.data() + r * count, count, zeros.data() + r * in + first);
        MultiplyInputs(x.data(), n, matrix, first, count, part.data());
        Multiply(zeros.data(), n, matrix, whole.data());
        ASSERT_EQ(part, whole) << first << " " << n << target;
      }
    }
  });
}

// One output as matrix.h defines it, with nothing but std::fma.
float FusedProduct(const Unscaled& w, const float* x, int64_t row, int64_t in, int group,
                   NumberFormat compute) {
  float total = 0;
  const int first_half = (group / 8 + 1) / 2 * 8;
  for (int64_t begin = 0; begin < in; begin += group) {
    for (const auto& [first, last] :
         {std::pair(begin, begin + first_half), std::pair(begin + first_half, begin + group)}) {
      float sum = 0;
      for (int64_t k = first; k < std::min(in, last); ++k) {
        sum = std::fma(Rounded(compute, x[k]), w.values[row * in + k], sum);
      }
      total = std::fma(sum, w.scales[row * in + begin], total);
    }
  }
  return total;
}

// The same of products of bf16 in tiles.
float TiledProduct(const Unscaled& w, const float* x, int64_t row, int64_t in, int group) {
  float total = 0;
  for (int64_t begin = 0; begin < in; begin += group) {
    float sum = 0;
    for (int64_t first = begin; first < begin + group; first += 32) {
      float even_and_odd[] = {0, 0};
      for (int64_t k = first; k < std::min({in, begin + group, first + 32}); ++k) {
        float& part = even_and_odd[k % 2];
        part = std::fma(Rounded(NumberFormat::kBFloat16, x[k]), w.values[row * in + k], part);
      }
      sum += even_and_odd[0] + even_and_odd[1];
    }
    total = std::fma(sum, w.scales[row * in + begin], total);
  }
  return total;
}

// So every machine with fused multiply-add, of whatever kind, gives the same bits.
TEST_P(Multiplication, InFp32IsBitForBitTheChainOfFusedMultiplyAddsThatTheHeaderPromises) {
  const Kind& kind = GetParam();
  for (const auto& [n, in, out] : kSizes) {
    const std::vector<float> x = Random(n * in, 9), w = Random(out * in, 10);
    const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
    const Unscaled unscaled = UnscaledOf(kind, out, in, w);
    std::vector<float> expected(n * out), y(n * out);
    for (int64_t i = 0; i < n * out; ++i) {
      expected[i] = FusedProduct(unscaled, &x[i / out * in], i % out, in, matrix.group, kind.compute);
    }
    OnEveryInstructionSet([&, n = n](const std::string& target) {
      const bool in_fp32 = kind.compute != NumberFormat::kBFloat16 || !MultipliesBFloat16();
      if (!in_fp32 || !FusesMultiplyAdd(target)) return;
      Multiply(x.data(), n, matrix, y.data());
      ASSERT_EQ(y, expected) << target;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Multiplication, testing::ValuesIn(kKinds),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(MultiplicationInTiles, IsBitForBitTheOrderThatTheHeaderPromises) {
  if (UnitInUse() != BFloat16Unit::kTiles) GTEST_SKIP() << "this machine has none";
  for (const Kind& kind : kKinds) {
    if (kind.compute != NumberFormat::kBFloat16) continue;
    for (const auto& [n, in, out] : kSizes) {
      const std::vector<float> x = Random(n * in, 11), w = Random(out * in, 12);
      const PackedMatrix matrix = Pack(kind.format, kind.compute, out, in, w);
      const Unscaled unscaled = UnscaledOf(kind, out, in, w);
      std::vector<float> expected(n * out), y(n * out);
      for (int64_t i = 0; i < n * out; ++i) {
        expected[i] = TiledProduct(unscaled, &x[i / out * in], i % out, in, matrix.group);
      }
      Multiply(x.data(), n, matrix, y.data());
      ASSERT_EQ(y, expected) << kind.name << n << "x" << in << "x" << out;
    }
  }
}

// Rows of fp16 operands with values that fp16 has not are as exact as others; their neighbours
// keep their bits.
TEST(MultiplicationInFloat16, NothingFiniteOverflows) {
  const int64_t n = 4, in = 192, out = 70;
  std::vector<float> x = Random(n * in, 13), w = Random(out * in, 14);
  const PackedMatrix matrix = Pack(NumberFormat::kFloat16, NumberFormat::kFloat16, out, in, w);
  std::vector<float> before(n * out), y(n * out);
  Multiply(x.data(), n, matrix, before.data());
  x[1 * in + 5] = 65519;  // rounds to the largest
  x[2 * in + 7] = -9.6e4f;
  x[3 * in + 150] = 1e34f;
  Multiply(x.data(), n, matrix, y.data());
  EXPECT_TRUE(std::equal(y.begin(), y.begin() + out, before.begin()));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < in; ++k) {
        const double product = double{x[i * in + k]} * Rounded(NumberFormat::kFloat16, w[o * in + k]);
        sum += product;
        magnitude += std::abs(product);
      }
      EXPECT_NEAR(y[i * out + o], sum, 1e-3 * magnitude) << i << " " << o;
    }
  }
}

// A matrix's values [out, in], as products with unit vectors show them.
std::vector<float> ValuesOf(const PackedMatrix& matrix) {
  std::vector<float> units(matrix.in * matrix.in), products(matrix.in * matrix.out), values(products.size());
  for (int64_t k = 0; k < matrix.in; ++k) units[k * matrix.in + k] = 1;
  Multiply(units.data(), matrix.in, matrix, products.data());
  for (int64_t k = 0; k < matrix.in; ++k) {
    for (int64_t o = 0; o < matrix.out; ++o) values[o * matrix.in + k] = products[k * matrix.out + o];
  }
  return values;
}

TEST(PackedMatrix, HoldsUnquantizedValuesAsTheyAre) {
  const std::vector<float> w = Random(70 * 100, 5);
  for (const auto& [format, compute] : {std::pair(NumberFormat::kFloat32, NumberFormat::kFloat32),
                                        std::pair(NumberFormat::kFloat16, NumberFormat::kFloat16),
                                        std::pair(NumberFormat::kBFloat16, NumberFormat::kBFloat16)}) {
    const std::vector<float> values = ValuesOf(Pack(format, compute, 70, 100, w));
    for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(values[i], Rounded(compute, w[i]));
  }
}

TEST(PackedMatrix, Int8IsWithinHalfAStepOfTheValue) {
  const std::vector<float> w = Random(64 * 128, 6);
  const std::vector<float> values = ValuesOf(Pack(NumberFormat::kInt8, NumberFormat::kFloat32, 64, 128, w));
  for (size_t begin = 0; begin < w.size(); begin += 64) {
    float largest = 0;
    for (size_t i = begin; i < begin + 64; ++i) largest = std::max(largest, std::abs(w[i]));
    for (size_t i = begin; i < begin + 64; ++i) EXPECT_NEAR(values[i], w[i], largest / 127 * 0.5001f);
  }
}

TEST(PackedMatrix, TakesTheBitsPerWeightThatItSays) {
  const double weights = 128 * 4096 / 8.0;
  for (const auto& [format, bits] :
       {std::pair(NumberFormat::kFloat32, 32.0), std::pair(NumberFormat::kFloat16, 16.0),
        std::pair(NumberFormat::kBFloat16, 16.0), std::pair(NumberFormat::kInt8, 8.5),
        std::pair(NumberFormat::kNf4, 4.5)}) {
    PackedMatrix matrix = EmptyMatrix(format, NumberFormat::kFloat32, 128, 4096);
    Allocate(matrix);
    EXPECT_EQ(matrix.bytes(), bits * weights);
    EXPECT_EQ(PackedBytes(format, 128, 4096), bits * weights);
  }
}

// The definition, value by value.
TEST(QuantizeNf4, TakesTheNearestCodeOfEachValueOverItsBlocksAbsmax) {
  for (int64_t count : {1, 2, 63, 64, 65, 127, 129, 1000, 4096}) {
    std::vector<float> w = Random(count, static_cast<unsigned>(count));
    if (count > 200) std::fill(w.begin() + 64, w.begin() + 128, 0.0f);  // a block of zeros
    for (NumberFormat type : {NumberFormat::kFloat32, NumberFormat::kBFloat16, NumberFormat::kFloat16}) {
      std::vector<uint16_t> halves(count);
      for (int64_t i = 0; i < count; ++i) {
        if (type == NumberFormat::kBFloat16) w[i] = BFloat16ToFloat(halves[i] = FloatToBFloat16(w[i]));
        if (type == NumberFormat::kFloat16) w[i] = Float16ToFloat(halves[i] = FloatToFloat16(w[i]));
      }
      const void* source =
          type == NumberFormat::kFloat32 ? static_cast<const void*>(w.data()) : halves.data();
      OnEveryInstructionSet([&](const std::string& target) {
        std::vector<uint8_t> codes((count + 1) / 2);
        std::vector<float> absmax((count + 63) / 64);
        ASSERT_TRUE(QuantizeNf4(source, type, count, codes.data(), absmax.data()));
        for (int64_t i = 0; i < count; ++i) {
          float largest = 0;
          for (int64_t j = i / 64 * 64; j < std::min(count, i / 64 * 64 + 64); ++j) {
            largest = std::max(largest, std::abs(w[j]));
          }
          ASSERT_EQ(absmax[i / 64], largest);
          const float scaled = w[i] * (1.0f / std::max(largest, 1e-38f));
          int nearest = 0;
          while (nearest < 15 && scaled > (kNf4Code[nearest] + kNf4Code[nearest + 1]) / 2) ++nearest;
          ASSERT_EQ(i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15, nearest)
              << i << " of " << count << target;
        }
      });
    }
  }
}

TEST(QuantizeNf4, SaysWhenAValueIsNotFinite) {
  std::vector<uint8_t> codes(50);
  std::vector<float> absmax(2);
  for (float bad : {NAN, INFINITY, -INFINITY}) {
    for (int64_t at : {0, 63, 64, 99}) {
      std::vector<float> w = Random(100, 7), values(100);
      w[at] = bad;
      EXPECT_FALSE(QuantizeNf4(w.data(), NumberFormat::kFloat32, 100, codes.data(), absmax.data()));
      EXPECT_FALSE(ConvertToFloat(w.data(), NumberFormat::kFloat32, 100, values.data()));
    }
  }
}

TEST(ConvertToFloat, ReadsEveryTypeExactly) {
  const std::vector<float> w = Random(77, 8);
  for (NumberFormat type : {NumberFormat::kBFloat16, NumberFormat::kFloat16}) {
    std::vector<uint16_t> halves(77);
    std::vector<float> values(77);
    for (int i = 0; i < 77; ++i) {
      halves[i] = type == NumberFormat::kBFloat16 ? FloatToBFloat16(w[i]) : FloatToFloat16(w[i]);
    }
    OnEveryInstructionSet([&](const std::string& target) {
      ASSERT_TRUE(ConvertToFloat(halves.data(), type, 77, values.data()));
      for (int i = 0; i < 77; ++i) {
        ASSERT_EQ(values[i],
                  type == NumberFormat::kBFloat16 ? BFloat16ToFloat(halves[i]) : Float16ToFloat(halves[i]))
            << target;
      }
    });
  }
}

}  // namespace
}  // namespace mechinterp::engine::kernels
