#include "services/engine/metal/metal_linear.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/services/engine/metal/compiled_kernels.h"
#include "tests/services/engine/metal/naive_linear.h"
#include "tests/services/engine/metal/shim_runner.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine::metal {
namespace {

struct Size {
  int64_t out, in;
};

// Around every boundary: 8 outputs of a threadgroup, 16 weights of a lane, 64 of a
// block, 512 of a step; rows that cut blocks; rows that end inside a byte.
const Size kSizes[] = {{1, 1},   {3, 7},   {5, 16},  {9, 48},  {8, 64},
                       {13, 80}, {7, 100}, {2, 512}, {4, 528}, {11, 1040}};
const at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

at::Tensor RandomActivations(int64_t rows, int64_t in, at::ScalarType type, int64_t seed) {
  at::manual_seed(seed);
  return at::randn({rows, in}, at::kFloat).to(type);
}

// Half a unit in the last place of the stored type, relative.
double StoredRounding(at::ScalarType type) {
  return type == at::kHalf ? 0x1p-11 : type == at::kBFloat16 ? 0x1p-8 : 0x1p-24;
}

void ExpectNear(const at::Tensor& y, const std::vector<NaiveProduct>& products, const std::string& what) {
  ASSERT_EQ(y.numel(), static_cast<int64_t>(products.size())) << what;
  const at::Tensor values = y.to(at::kFloat).contiguous();
  for (int64_t i = 0; i < y.numel(); ++i) {
    // fp32 sums of at most 1040 terms; then the result is rounded once.
    const double allowed =
        products[i].magnitude * 1e-6 + std::abs(products[i].value) * StoredRounding(y.scalar_type());
    ASSERT_NEAR(values.data_ptr<float>()[i], products[i].value, allowed + 1e-7) << what << ", element " << i;
  }
}

class Formats : public testing::TestWithParam<std::tuple<NumberFormat, Nf4Lookup>> {
 protected:
  NumberFormat format() const { return std::get<0>(GetParam()); }
  ShimRunner runner_{std::get<1>(GetParam())};
};

std::string FormatName(const testing::TestParamInfo<Formats::ParamType>& info) {
  if (std::get<0>(info.param) == NumberFormat::kInt8) return "Int8";
  return std::get<1>(info.param) == Nf4Lookup::kShuffle ? "Nf4Shuffle" : "Nf4Threadgroup";
}

INSTANTIATE_TEST_SUITE_P(Metal, Formats,
                         testing::Values(std::tuple(NumberFormat::kNf4, Nf4Lookup::kShuffle),
                                         std::tuple(NumberFormat::kNf4, Nf4Lookup::kThreadgroup),
                                         std::tuple(NumberFormat::kInt8, Nf4Lookup::kShuffle)),
                         FormatName);

TEST_P(Formats, ProductsAreTheDefinitionForAwkwardShapesAndEveryType) {
  for (const auto& [out, in] : kSizes) {
    const QuantizedMatrix w = RandomMatrix(format(), out, in, 1);
    for (at::ScalarType type : kTypes) {
      for (int64_t rows : {1, 3, 8, 9}) {
        const at::Tensor x = RandomActivations(rows, in, type, 2);
        const auto y = Linear(x, w, &runner_);
        ASSERT_THAT(y, IsOk());
        EXPECT_EQ(y->scalar_type(), format() == NumberFormat::kInt8 ? at::kFloat : type);
        ExpectNear(*y, NaiveLinear(x, w),
                   absl::StrCat(rows, " rows, ", in, " -> ", out, ", ", at::toString(type)));
      }
    }
  }
}

// Past kMaxLinearRows panels take over; both are the definition.
TEST_P(Formats, ProductsAreTheDefinitionFor1To40Rows) {
  const QuantizedMatrix w = RandomMatrix(format(), 7, 80, 3);
  for (int64_t rows = 1; rows <= 40; ++rows) {
    const at::Tensor x = RandomActivations(rows, 80, at::kFloat, rows);
    const auto y = Linear(x, w, &runner_);
    ASSERT_THAT(y, IsOk());
    EXPECT_EQ(absl::StrContains(runner_.last_kernel, "_linear_"), rows <= kMaxLinearRows)
        << runner_.last_kernel;
    ExpectNear(*y, NaiveLinear(x, w), absl::StrCat(rows, " rows"));
  }
}

TEST_P(Formats, ARowsBitsDependOnNoOtherRow) {
  const int64_t in = 528, out = 9;
  const QuantizedMatrix w = RandomMatrix(format(), out, in, 4);
  // fp32: rounding to fewer bits would hide a difference.
  const at::Tensor x = RandomActivations(19, in, at::kFloat, 5);
  const auto alone = [&](int64_t row) {
    return Linear(x.slice(0, row, row + 1).clone(), w, &runner_).value();
  };
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < x.size(0); ++row) rows.push_back(alone(row));
  for (int64_t count : {2, 3, 4, 5, 6, 7, 8, 9, 12, 19}) {
    const auto together = Linear(x.slice(0, 0, count), w, &runner_);
    ASSERT_THAT(together, IsOk());
    EXPECT_TRUE(at::equal(*together, at::cat(std::vector(rows.begin(), rows.begin() + count)))) << count;
  }
}

TEST_P(Formats, PanelsAreTheWeightsRoundedOnce) {
  for (const auto& [out, in] : kSizes) {
    const QuantizedMatrix w = RandomMatrix(format(), out, in, 6);
    for (at::ScalarType type : kTypes) {
      const int64_t first = out / 3, outputs = out - first;
      const auto panel = Dequantize(w, first, outputs, type, &runner_);
      ASSERT_THAT(panel, IsOk());
      const auto by_aten = Dequantize(w, first, outputs, type, nullptr);
      ASSERT_THAT(by_aten, IsOk());
      at::Tensor expected = at::empty({outputs, in}, at::kFloat);
      for (int64_t i = 0; i < outputs * in; ++i) {
        expected.data_ptr<float>()[i] = NaiveWeight(w, first + i / in, i % in);
      }
      EXPECT_TRUE(at::equal(*panel, expected.to(type))) << out << "x" << in << " " << at::toString(type);
      EXPECT_TRUE(at::equal(*by_aten, expected.to(type))) << out << "x" << in << " " << at::toString(type);
    }
  }
}

TEST_P(Formats, WithoutARunnerAtenMultiplies) {
  const QuantizedMatrix w = RandomMatrix(format(), 9, 100, 7);
  const at::Tensor x = RandomActivations(3, 100, at::kFloat, 8);
  const auto y = Linear(x, w, nullptr);
  ASSERT_THAT(y, IsOk());
  EXPECT_EQ(runner_.launches, 0);
  ExpectNear(*y, NaiveLinear(x, w), "ATen");
}

// Loads of 16 bytes must not start elsewhere; the sanitizers would see it.
TEST_P(Formats, OperandsThatStartOddlyGoAnotherWay) {
  const QuantizedMatrix w = RandomMatrix(format(), 9, 64, 9);
  const at::Tensor x = RandomActivations(1, 65, at::kHalf, 10).reshape({-1}).slice(0, 1, 65).reshape({1, 64});
  const auto y = Linear(x, w, &runner_);
  ASSERT_THAT(y, IsOk());
  EXPECT_THAT(runner_.last_kernel, testing::EndsWith("_any"));
  ExpectNear(*y, NaiveLinear(x, w), "at an odd offset");
}

TEST_P(Formats, AnInfinityStaysInItsRow) {
  const QuantizedMatrix w = RandomMatrix(format(), 9, 48, 11);
  at::Tensor x = RandomActivations(3, 48, at::kFloat, 12);
  x[1][0] = INFINITY;
  const auto y = Linear(x, w, &runner_);
  ASSERT_THAT(y, IsOk());
  EXPECT_TRUE((*y)[0].isfinite().all().item<bool>());
  EXPECT_FALSE((*y)[1].isfinite().all().item<bool>());
  EXPECT_TRUE((*y)[2].isfinite().all().item<bool>());
}

TEST_P(Formats, WhatDoesNotFitIsRefused) {
  const QuantizedMatrix w = RandomMatrix(format(), 9, 64, 13);
  const at::Tensor x = RandomActivations(2, 64, at::kFloat, 14);
  const auto code = [&](const at::Tensor& activations, const QuantizedMatrix& matrix) {
    return Linear(activations, matrix, &runner_).status().code();
  };
  EXPECT_EQ(code(x, w), absl::StatusCode::kOk);
  EXPECT_EQ(code(x.slice(1, 0, 63).contiguous(), w), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(x.t(), w), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(x.slice(0, 0, 0), w), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(x.to(at::kDouble), w), absl::StatusCode::kInvalidArgument);
  QuantizedMatrix short_scales = w;
  short_scales.scales = w.scales.slice(0, 1);
  EXPECT_EQ(code(x, short_scales), absl::StatusCode::kInvalidArgument);
  QuantizedMatrix wrong_type = w;
  wrong_type.weights = w.weights.to(at::kInt);
  EXPECT_EQ(code(x, wrong_type), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Dequantize(w, 8, 2, at::kHalf, &runner_).status().code(), absl::StatusCode::kInvalidArgument);
}

// What a Mac whose Metal fails looks like to the caller.
TEST_P(Formats, ARunnersFailureIsPassedOn) {
  class Broken : public KernelRunner {
    absl::Status Run(const Launch&, absl::Span<const at::Tensor>) override {
      return absl::InternalError("broken");
    }
  } broken;
  const QuantizedMatrix w = RandomMatrix(format(), 9, 64, 15);
  for (int64_t rows : {1, 40}) {
    const auto y = Linear(RandomActivations(rows, 64, at::kFloat, 16), w, &broken);
    EXPECT_EQ(y.status(), absl::InternalError("broken"));
  }
}

TEST(CompiledKernels, AreThoseThatTheLibraryAsksFor) {
  std::set<std::string> compiled;
  for (const auto& [name, kernel] : CompiledKernels(Nf4Lookup::kShuffle)) compiled.insert(name);
  EXPECT_THAT(KernelNames(), testing::UnorderedElementsAreArray(compiled));
}

}  // namespace
}  // namespace mechinterp::engine::metal
