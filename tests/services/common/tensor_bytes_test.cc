#include "services/common/tensor_bytes.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;

std::vector<float> ThereAndBack(std::vector<float> values, v1::DataType type) {
  const size_t size = values.size() * ElementBytes(type).value();
  std::string bytes(size + 1, 'x');
  EncodeValues(values, type, bytes.data());
  EXPECT_EQ(bytes.back(), 'x');  // no further than the values
  DecodeValues(absl::string_view(bytes).substr(0, size), type, values.data());
  return values;
}

// Ties go to the even neighbour: 2049 and 2051 lie between fp16's 2048, 2050 and 2052.
TEST(TensorBytes, AreRoundedToNearestEven) {
  const std::vector<float> values = {1, 2049, 2051, -0.1f};
  EXPECT_EQ(ThereAndBack(values, v1::DATA_TYPE_FLOAT32), values);
  EXPECT_THAT(ThereAndBack(values, v1::DATA_TYPE_FLOAT16), ElementsAre(1, 2048, 2052, -0.0999755859375f));
  EXPECT_THAT(ThereAndBack(values, v1::DATA_TYPE_BFLOAT16), ElementsAre(1, 2048, 2048, -0.10009765625f));
}

TEST(TensorBytes, BeyondTheRangeIsInfinity) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(ThereAndBack({65504, 65520, -1e9f, -infinity}, v1::DATA_TYPE_FLOAT16),
              ElementsAre(65504, infinity, -infinity, -infinity));
  EXPECT_THAT(ThereAndBack({3e38f, 3.4e38f}, v1::DATA_TYPE_BFLOAT16), testing::Contains(infinity));
  EXPECT_TRUE(std::isnan(ThereAndBack({std::nanf("")}, v1::DATA_TYPE_BFLOAT16)[0]));
}

TEST(TensorBytes, OtherTypesHaveNoElements) {
  EXPECT_EQ(ElementBytes(v1::DATA_TYPE_UNSPECIFIED), std::nullopt);
  EXPECT_EQ(ElementBytes(static_cast<v1::DataType>(99)), std::nullopt);
}

// The check value of the catalogue of CRCs (CRC-32/ISO-HDLC).
TEST(TensorBytes, TheSumIsCrc32) {
  EXPECT_EQ(Crc32("123456789"), 0xcbf43926u);
  EXPECT_EQ(Crc32(""), 0u);
}

}  // namespace
}  // namespace mechinterp
