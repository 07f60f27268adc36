#ifndef SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_WRITER_H_
#define SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/engine/checkpoint/safetensors.h"

namespace mechinterp::engine {

// Takes the next bytes of a tensor.
using ByteSink = std::function<absl::Status(absl::Span<const std::byte>)>;

// A tensor to write, whose contents are made when it is their turn, so that no
// more than one tensor (or one piece of it) is in memory.
struct TensorSource {
  std::string name;
  NumberFormat dtype = NumberFormat::kFloat32;
  std::vector<int64_t> shape;
  // Hands the tensor, little-endian and row-major, to the sink in pieces of any
  // size. Called once. Its error, or one of the sink's, ends the writing.
  std::function<absl::Status(const ByteSink&)> write;
};

// Bytes of a tensor of this type and shape. Errors: InvalidArgument (a negative
// dimension; more than 2^63 - 1 bytes), naming the tensor.
absl::StatusOr<uint64_t> TensorBytes(const TensorSource& tensor);

// Writes one safetensors file at `path` and syncs it; what was there is lost.
// The tensors are asked for in the order given; in the file they lie widest
// type first, so that each is aligned to its element size, as readers that view
// the file in place need. On an error the file is left half-written: the caller
// writes where nobody reads yet. Errors: InvalidArgument (a bad shape; a name
// given twice, reserved, or not UTF-8; a source that hands over too few or too
// many bytes), the source's own, and OutputFile's; all about one tensor name it.
absl::Status WriteSafetensorsFile(const std::string& path, absl::Span<const TensorSource> tensors,
                                  const std::map<std::string, std::string>& metadata);

// The beginning of such a file: its header, and before it the header's length. The tensors' bytes
// follow without a gap, widest type first, else in the order given. Errors: those of
// WriteSafetensorsFile about names, shapes and metadata.
absl::StatusOr<std::string> SafetensorsPrologue(absl::Span<const TensorSource> tensors,
                                                const std::map<std::string, std::string>& metadata);

// A tensor to write: fp32 values, stored as `dtype` (kF32, kF16 or kBF16,
// rounded to nearest even).
struct TensorToWrite {
  std::string name;
  NumberFormat dtype = NumberFormat::kFloat32;
  std::vector<int64_t> shape;
  absl::Span<const float> values;
};

// Writes a safetensors file at `path`, through a temporary file beside it and
// a rename, so that a reader never sees half a file. Errors: InvalidArgument
// (another dtype, values that do not fill the shape), and those of
// WriteSafetensorsFile.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_WRITER_H_
