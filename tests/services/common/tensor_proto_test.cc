#include "services/common/tensor_proto.h"

#include <cmath>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Tensor TensorOf(v1::DataType type, std::vector<int64_t> shape, std::string data) {
  v1::Tensor tensor;
  tensor.set_data_type(type);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(std::move(data));
  return tensor;
}

std::string ErrorOf(const v1::Tensor& tensor) {
  const auto values = FloatValues(tensor);
  EXPECT_EQ(values.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(values.status().message());
}

TEST(TensorProto, RoundTripsFloat32) {
  const std::vector<float> values = {1.5f, -0.0f, 3e38f, 1e-45f, -2, 7};
  const v1::Tensor tensor = MakeTensor({2, 3}, values);
  EXPECT_EQ(tensor.data_type(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(tensor.shape(), ElementsAre(2, 3));
  const auto read = FloatValues(tensor);
  ASSERT_THAT(read, IsOk());
  EXPECT_EQ(*read, values);
  EXPECT_TRUE(std::signbit((*read)[1]));
}

TEST(TensorProto, WritesLittleEndian) {
  EXPECT_EQ(MakeTensor({}, {1.0f}).data(), std::string("\0\0\x80\x3f", 4));
}

TEST(TensorProto, ReadsFloat16) {
  // Bit patterns from IEEE 754: 1, -2, the largest, the smallest subnormal,
  // the largest subnormal, -0, one third.
  const std::string data("\x00\x3c\x00\xc0\xff\x7b\x01\x00\xff\x03\x00\x80\x55\x35", 14);
  const auto values = FloatValues(TensorOf(v1::DATA_TYPE_FLOAT16, {7}, data));
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(*values, ElementsAre(1, -2, 65504, 0x1p-24f, 1023 * 0x1p-24f, 0, 0.333251953125f));
  EXPECT_TRUE(std::signbit((*values)[5]));
}

TEST(TensorProto, ReadsBfloat16) {
  const std::string data("\x80\x3f\x49\x40\x7f\xff", 6);  // 1, 3.140625, the most negative
  const auto values = FloatValues(TensorOf(v1::DATA_TYPE_BFLOAT16, {3}, data));
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(*values, ElementsAre(1, 3.140625f, -3.38953139e38f));
}

TEST(TensorProto, RejectsWhatDoesNotFit) {
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_UNSPECIFIED, {1}, "abcd")), HasSubstr("data_type"));
  EXPECT_THAT(ErrorOf(TensorOf(static_cast<v1::DataType>(99), {1}, "abcd")), HasSubstr("data_type"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT32, {2, 0}, "")), HasSubstr("shape[1] is 0"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT32, {-1}, "abcd")), HasSubstr("shape[0] is -1"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT32, {2}, "abcd")), HasSubstr("data holds 4 bytes"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT16, {1}, "abcd")), HasSubstr("ask for 2"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT32, {}, "")), HasSubstr("ask for 4"));
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT32, {huge, 4, huge}, "")), HasSubstr("more elements"));
}

TEST(TensorProto, RejectsNonFiniteValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(ErrorOf(MakeTensor({2}, {0, -infinity})), HasSubstr("element 1"));
  EXPECT_THAT(ErrorOf(MakeTensor({1}, {std::nanf("")})), HasSubstr("not finite"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_FLOAT16, {1}, std::string("\x00\x7c", 2))),
              HasSubstr("not finite"));
  EXPECT_THAT(ErrorOf(TensorOf(v1::DATA_TYPE_BFLOAT16, {1}, std::string("\xc0\x7f", 2))),
              HasSubstr("not finite"));
}

}  // namespace
}  // namespace mechinterp
