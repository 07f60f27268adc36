#ifndef SERVICES_COMMON_TENSOR_PROTO_H_
#define SERVICES_COMMON_TENSOR_PROTO_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mechinterp/v1/tensor.pb.h"

namespace mechinterp {

// fp32 values of a Tensor of any of its data types. InvalidArgument when the
// data type is unspecified, a dimension is below 1, `data` is not as long as
// type and shape say, or a value is not finite.
absl::StatusOr<std::vector<float>> FloatValues(const v1::Tensor& tensor);

// A FLOAT32 Tensor. `values` must hold the product of `shape`.
v1::Tensor MakeTensor(absl::Span<const int64_t> shape, absl::Span<const float> values);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_TENSOR_PROTO_H_
