#ifndef SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_H_
#define SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/engine/base/host_tensor.h"
#include "services/engine/kernels/number_format.h"

namespace mechinterp::engine {

// The format's own limit on its JSON header.
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// Bytes of one element.
inline int ByteWidth(NumberFormat dtype) { return InfoOf(dtype).bits / 8; }
// The name the file format uses: "F32", "BF16", ...
absl::string_view DTypeName(NumberFormat dtype);
// Nothing for types that the engine does not read.
std::optional<NumberFormat> ParseDType(absl::string_view name);

// A tensor that lies in a mapped file. Valid as long as its SafetensorsFile.
struct TensorView {
  NumberFormat dtype = NumberFormat::kFloat32;
  std::vector<int64_t> shape;
  absl::Span<const std::byte> bytes;  // little-endian, row-major
};

// Converts an F32, F16 or BF16 view to fp32. InvalidArgument for other types.
absl::StatusOr<HostTensor> ToHostTensor(const TensorView& view);

// Advice to the system about a mapped tensor's pages; never changes what is
// read, and does nothing where there is no such call. Thread-safe.

// The tensor will be read once, from front to back: read ahead.
void AnnounceSequentialReading(const TensorView& view);
// The pages that lie wholly inside the tensor need no longer be resident. Reading
// it again later works, from the file.
void ReleasePages(const TensorView& view);

// One memory-mapped .safetensors file
// (https://huggingface.co/docs/safetensors: u64 header length, JSON header,
// data). Opening reads and checks only the header: its length, that it is an
// object of {dtype, shape, data_offsets}, and that every tensor lies inside the
// file, does not overlap another and has the size its shape says.
// Errors: NotFound, PermissionDenied and whatever else the system says;
// InvalidArgument (anything malformed; the message names the file and the
// tensor); Unimplemented (an unknown dtype). Thread-safe after Open. A file must
// not be cut short while it is mapped: the system ends a program that reads what
// is gone. Replace files by renaming, as the writers here do.
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
  absl::Span<const std::byte> mapping_;
  std::map<std::string, TensorView, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_SAFETENSORS_H_
