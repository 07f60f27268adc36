#ifndef SERVICES_MODEL_ENGINE_SAFETENSORS_H_
#define SERVICES_MODEL_ENGINE_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/model/engine/host_tensor.h"

namespace mechinterp::engine {

// The format's own limit on its JSON header.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// The element types of the safetensors format that the engine reads.
enum class DType { kF32, kF16, kBF16, kI64, kI32, kU8, kI8, kBool, kF64 };

// Bytes of one element.
int ByteWidth(DType dtype);
// The name the file format uses: "F32", "BF16", ...
absl::string_view DTypeName(DType dtype);

// A tensor that lies in a mapped file. Valid as long as its SafetensorsFile.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const std::byte> bytes;  // little-endian, row-major
};

// Converts an F32, F16 or BF16 view to fp32. InvalidArgument for other types.
absl::StatusOr<HostTensor> ToHostTensor(const TensorView& view);

// One memory-mapped .safetensors file
// (https://huggingface.co/docs/safetensors: u64 header length, JSON header,
// data). Opening reads and checks only the header: its length, that it is an
// object of {dtype, shape, data_offsets}, and that every tensor lies inside the
// file, does not overlap another and has the size its shape says.
// Errors: NotFound (no such file), InvalidArgument (anything malformed; the
// message names the file and the tensor). Thread-safe after Open.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::shared_ptr<const SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  // Null when the file has no tensor of this name.
  const TensorView* Find(absl::string_view name) const;
  const std::map<std::string, TensorView, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

 private:
  SafetensorsFile() = default;

  std::string path_;
  void* mapping_ = nullptr;
  size_t mapping_bytes_ = 0;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

// A tensor to write: fp32 values, stored as `dtype` (kF32, kF16 or kBF16,
// rounded to nearest even).
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const float> values;
};

// Writes a safetensors file at `path`, through a temporary file beside it and
// a rename, so that a reader never sees half a file. Errors name the path.
absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace mechinterp::engine

#endif  // SERVICES_MODEL_ENGINE_SAFETENSORS_H_
