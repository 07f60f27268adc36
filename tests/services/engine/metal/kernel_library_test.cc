#include "services/engine/metal/kernel_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/status_matchers.h"

namespace mechinterp::engine::metal {
namespace {

using testing::ElementsAre;

TEST(LinearLaunch, ATokenOfDecodingIsOneRowByEightOutputsAThreadgroup) {
  const auto launch = LinearLaunch(NumberFormat::kNf4, NumberFormat::kFloat16, 1, 4096, 14336, true);
  ASSERT_THAT(launch, IsOk());
  EXPECT_EQ(launch->kernel, "nf4_linear_half_1");
  EXPECT_THAT(launch->threads, ElementsAre(14336 / 8 * 64, 1));
  EXPECT_THAT(launch->group_size, ElementsAre(64, 1));
  EXPECT_EQ(launch->arguments.rows, 1);
  EXPECT_EQ(launch->arguments.in, 4096);
  EXPECT_EQ(launch->arguments.out, 14336);
}

// As few tiles as can be, and as small as will do.
TEST(LinearLaunch, RowsAreDividedEvenlyAmongTiles) {
  const auto tile = [](int64_t rows) {
    const Launch launch =
        LinearLaunch(NumberFormat::kInt8, NumberFormat::kFloat32, rows, 64, 8, true).value();
    return launch.kernel.substr(launch.kernel.rfind('_') + 1) + " x " + std::to_string(launch.threads[1]);
  };
  EXPECT_EQ(tile(2), "2 x 1");
  EXPECT_EQ(tile(3), "4 x 1");
  EXPECT_EQ(tile(5), "6 x 1");
  EXPECT_EQ(tile(8), "8 x 1");
  EXPECT_EQ(tile(9), "6 x 2");
  EXPECT_EQ(tile(16), "8 x 2");
  EXPECT_EQ(tile(32), "8 x 4");
}

TEST(LinearLaunch, OddRowsAndOddAddressesTakeTheKernelForAll) {
  for (const auto& [in, aligned] : {std::pair(100, true), std::pair(64, false)}) {
    const auto launch = LinearLaunch(NumberFormat::kNf4, NumberFormat::kBFloat16, 5, in, 9, aligned);
    ASSERT_THAT(launch, IsOk());
    EXPECT_EQ(launch->kernel, "nf4_linear_bfloat_any");
    EXPECT_THAT(launch->threads, ElementsAre(5 * 64, 5));
  }
}

TEST(DequantizeLaunch, AThreadTakesSixteenWeights) {
  const auto launch =
      DequantizeLaunch(NumberFormat::kNf4, NumberFormat::kFloat16, 4096, 14336, 8192, 6144, true);
  ASSERT_THAT(launch, IsOk());
  EXPECT_EQ(launch->kernel, "nf4_dequantize_half");
  EXPECT_THAT(launch->threads, ElementsAre(4096 / 16, 6144));
  EXPECT_EQ(launch->arguments.first_output, 8192);
  EXPECT_EQ(launch->arguments.rows, 6144);
}

TEST(Launches, RefuseWhatIndicesOf32BitsCannotReach) {
  const auto linear = [](int64_t rows, int64_t in, int64_t out) {
    return LinearLaunch(NumberFormat::kInt8, NumberFormat::kFloat16, rows, in, out, true).status().code();
  };
  EXPECT_EQ(linear(1, 4096, 128256), absl::StatusCode::kOk);
  EXPECT_EQ(linear(1, 65536, 65536), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(linear(1 << 20, 64, 8192), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(linear(0, 64, 8), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(linear(1, -64, 8), absl::StatusCode::kInvalidArgument);
  const auto panel = [](int64_t first, int64_t outputs) {
    return DequantizeLaunch(NumberFormat::kNf4, NumberFormat::kFloat16, 64, 8, first, outputs, true)
        .status()
        .code();
  };
  EXPECT_EQ(panel(0, 8), absl::StatusCode::kOk);
  EXPECT_EQ(panel(1, 8), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(panel(-1, 2), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(panel(INT64_MAX, 2), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mechinterp::engine::metal
