#include "services/common/tensor_proto.h"

#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/common/tensor_bytes.h"

namespace mechinterp {
namespace {

// The element count that `shape` asks for, checked against what `data` holds.
absl::StatusOr<size_t> CheckedElementCount(const v1::Tensor& tensor, size_t element_size) {
  size_t count = 1;
  for (int i = 0; i < tensor.shape_size(); ++i) {
    const int64_t size = tensor.shape(i);
    if (size < 1) {
      return absl::InvalidArgumentError(absl::StrCat("shape[", i, "] is ", size, "; it must be at least 1"));
    }
    // Nothing that fits in a message overflows this.
    if (static_cast<uint64_t>(size) > std::numeric_limits<size_t>::max() / element_size / count) {
      return absl::InvalidArgumentError("shape holds more elements than can be addressed");
    }
    count *= size;
  }
  if (tensor.data().size() != count * element_size) {
    return absl::InvalidArgumentError(absl::StrCat("data holds ", tensor.data().size(), " bytes; ",
                                                   v1::DataType_Name(tensor.data_type()),
                                                   " and shape ask for ", count * element_size));
  }
  return count;
}

}  // namespace

absl::StatusOr<std::vector<float>> FloatValues(const v1::Tensor& tensor) {
  const std::optional<size_t> element_size = ElementBytes(tensor.data_type());
  if (!element_size.has_value()) {
    return absl::InvalidArgumentError("data_type must be FLOAT32, FLOAT16 or BFLOAT16");
  }
  const absl::StatusOr<size_t> count = CheckedElementCount(tensor, *element_size);
  if (!count.ok()) return count.status();

  std::vector<float> values(*count);
  DecodeValues(tensor.data(), tensor.data_type(), values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(absl::StrCat("data: element ", i, " is not finite"));
    }
  }
  return values;
}

v1::Tensor MakeTensor(absl::Span<const int64_t> shape, absl::Span<const float> values) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(values.data(), values.size() * sizeof(float));
  return tensor;
}

}  // namespace mechinterp
