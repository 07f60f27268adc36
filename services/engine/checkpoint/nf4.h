#ifndef SERVICES_ENGINE_CHECKPOINT_NF4_H_
#define SERVICES_ENGINE_CHECKPOINT_NF4_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/engine/base/host_tensor.h"
#include "services/engine/checkpoint/checkpoint.h"

namespace mechinterp::engine {

// Matrices in bitsandbytes' NF4 (Dettmers et al. 2023): blocks of 64 values of the
// flattened matrix, each by its largest magnitude; in a checkpoint, packed codes
// under the matrix's name (their bytes under any type), and beside it `.absmax`, `.quant_map`,
// `.quant_state.bitsandbytes__nf4` and, with double quantization, `.nested_*`.

// Double quantization: absmax less its mean, in blocks of 256, as indices into
// bitsandbytes' 8-bit dynamic map.
inline constexpr int64_t kNestedBlock = 256;
struct NestedAbsmax {
  std::vector<uint8_t> codes;  // one for each block of the matrix
  std::vector<float> absmax;   // of each 256 of them
  float offset = 0;            // the mean
};

struct Nf4Matrix {
  std::vector<int64_t> shape;
  // Two indices a byte, the first in the high nibble: in `owned_codes`, or in the
  // checkpoint's mapping.
  absl::Span<const uint8_t> codes;
  std::vector<uint8_t> owned_codes;
  std::vector<float> absmax;  // of each block, as it takes effect
  std::array<float, 16> code;
  NumberFormat dtype =
      NumberFormat::kFloat32;  // what was quantized, and what a dequantized value is rounded to
  std::optional<NestedAbsmax> nested;
};

// The name of the part that every such matrix has, and of all that it can have.
std::string Nf4StateName(const std::string& name);
std::vector<std::string> Nf4PartNames(const std::string& name);

// Whether a checkpoint holds this matrix so.
bool IsNf4(const Checkpoint& checkpoint, const std::string& name);

// The type that was quantized, of a matrix for which IsNf4 holds.
NumberFormat Nf4StoredType(const Checkpoint& checkpoint, const std::string& name);

// Reads one. Valid as long as the checkpoint. InvalidArgument, naming the tensor,
// when parts are missing, have wrong sizes or contradict `shape`.
absl::StatusOr<Nf4Matrix> ReadNf4(const Checkpoint& checkpoint, const std::string& name,
                                  absl::Span<const int64_t> shape);

// The values, bit for bit as bitsandbytes dequantizes them: code of each index
// times absmax, rounded to the matrix's dtype.
HostTensor Dequantize(const Nf4Matrix& matrix);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_NF4_H_
