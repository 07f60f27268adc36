#ifndef SERVICES_MODEL_ENGINE_NF4_H_
#define SERVICES_MODEL_ENGINE_NF4_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/engine/checkpoint.h"
#include "services/model/engine/host_tensor.h"

namespace mechinterp::engine {

// Whether a checkpoint holds this matrix in bitsandbytes' NF4 layout: packed
// codes under `name`, and beside it `.absmax`, `.quant_map`,
// `.quant_state.bitsandbytes__nf4` and, with double quantization, `.nested_*`.
bool IsNf4(const Checkpoint& checkpoint, const std::string& name);

// The matrix's values, bit for bit as bitsandbytes dequantizes them (Dettmers et
// al. 2023): code of each 4-bit index times its block's absmax, blocks taken over
// the flattened matrix, the first of a byte's two codes in the high nibble; then
// rounded to the type that the quantized matrix had. InvalidArgument, naming the
// tensor, when parts are missing, have wrong sizes or contradict `shape`.
absl::StatusOr<HostTensor> DequantizeNf4(const Checkpoint& checkpoint, const std::string& name,
                                         absl::Span<const int64_t> shape);

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_NF4_H_
