#include "services/model/engine/safetensors_writer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/model/engine/output_file.h"

namespace mechinterp::engine {
namespace {

// Where everything goes in the file.
struct Layout {
  std::string prologue;           // the header's length and the header
  std::vector<uint64_t> offsets;  // from the start of the file, per tensor
  std::vector<uint64_t> bytes;    // per tensor
};

std::vector<size_t> WidestFirst(absl::Span<const TensorSource> tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return ByteWidth(tensors[a].dtype) > ByteWidth(tensors[b].dtype);
  });
  return order;
}

absl::StatusOr<std::string> Prologue(const nlohmann::json& header) {
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("a tensor's name or the metadata is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data starts aligned
  if (text.size() > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("too many tensors: the header would have ", text.size(),
                                                   " bytes, the format allows ", kMaxSafetensorsHeaderBytes));
  }
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + text;
}

absl::StatusOr<Layout> LayOut(absl::Span<const TensorSource> tensors,
                              const std::map<std::string, std::string>& metadata) {
  Layout layout;
  for (const TensorSource& tensor : tensors) {
    ABSTRACT_ASSIGN_OR_RETURN(layout.bytes.emplace_back(), TensorBytes(tensor));
  }
  nlohmann::json header = nlohmann::json::object();
  header["__metadata__"] = metadata;
  layout.offsets.resize(tensors.size());
  uint64_t end = 0;
  for (size_t i : WidestFirst(tensors)) {
    const TensorSource& tensor = tensors[i];
    if (header.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' is given twice"));
    }
    layout.offsets[i] = end;
    end += layout.bytes[i];
    header[tensor.name] = {{"dtype", std::string(DTypeName(tensor.dtype))},
                           {"shape", tensor.shape},
                           {"data_offsets", {layout.offsets[i], end}}};
  }
  if (metadata.empty()) header.erase("__metadata__");
  ABSTRACT_ASSIGN_OR_RETURN(layout.prologue, Prologue(header));
  for (uint64_t& offset : layout.offsets) offset += layout.prologue.size();
  return layout;
}

// `status` with the tensor's name before its message.
absl::Status About(const TensorSource& tensor, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("tensor '", tensor.name, "': ", status.message()));
}

absl::Status WriteTensor(const TensorSource& tensor, uint64_t offset, uint64_t bytes, OutputFile& file) {
  uint64_t written = 0;
  absl::Status failure;  // kept, lest a source go on after the sink's error
  const ByteSink sink = [&](absl::Span<const std::byte> piece) {
    if (!failure.ok()) return failure;
    if (piece.size() > bytes - written) {
      failure = absl::InvalidArgumentError(absl::StrCat("its source hands over more than the ", bytes,
                                                        " bytes that its shape [",
                                                        absl::StrJoin(tensor.shape, ", "), "] needs"));
      return failure;
    }
    failure = file.WriteAt(offset + written, piece);
    written += piece.size();
    return failure;
  };
  absl::Status status = tensor.write(sink);
  if (status.ok()) status = failure;
  if (status.ok() && written != bytes) {
    status = absl::InvalidArgumentError(absl::StrCat("its source hands over ", written, " bytes, its shape [",
                                                     absl::StrJoin(tensor.shape, ", "), "] needs ", bytes));
  }
  return status.ok() ? status : About(tensor, status);
}

}  // namespace

absl::StatusOr<uint64_t> TensorBytes(const TensorSource& tensor) {
  int64_t bytes = ByteWidth(tensor.dtype);
  for (int64_t dim : tensor.shape) {
    if (dim < 0 || __builtin_mul_overflow(bytes, dim, &bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' cannot have the shape [",
                                                     absl::StrJoin(tensor.shape, ", "), "]"));
    }
  }
  return static_cast<uint64_t>(bytes);
}

absl::Status WriteSafetensorsFile(const std::string& path, absl::Span<const TensorSource> tensors,
                                  const std::map<std::string, std::string>& metadata) {
  ABSTRACT_ASSIGN_OR_RETURN(const Layout layout, LayOut(tensors, metadata));
  ABSTRACT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  ABSTRACT_RETURN_IF_ERROR(
      file.WriteAt(0, absl::MakeConstSpan(reinterpret_cast<const std::byte*>(layout.prologue.data()),
                                          layout.prologue.size())));
  for (size_t i = 0; i < tensors.size(); ++i) {
    ABSTRACT_RETURN_IF_ERROR(WriteTensor(tensors[i], layout.offsets[i], layout.bytes[i], file));
  }
  return file.SyncAndClose();
}

}  // namespace mechinterp::engine
