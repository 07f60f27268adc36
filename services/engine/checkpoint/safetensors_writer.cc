#include "services/engine/checkpoint/safetensors_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/common/float16.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/output_file.h"

namespace mechinterp::engine {
namespace {

// Where everything goes in the file.
struct Layout {
  std::string prologue;           // the header's length and the header
  std::vector<uint64_t> offsets;  // from the start of the file, per tensor
  std::vector<uint64_t> bytes;    // per tensor
};

absl::Span<const std::byte> AsBytes(const void* data, size_t size) {
  return {static_cast<const std::byte*>(data), size};
}

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

// The values in the 16-bit format that `encode` makes, a piece at a time.
absl::Status WriteHalves(absl::Span<const float> values, uint16_t (*encode)(float), const ByteSink& sink) {
  constexpr size_t kPiece = 1 << 16;
  std::vector<uint16_t> halves;
  for (; !values.empty(); values.remove_prefix(halves.size())) {
    halves.resize(std::min(values.size(), kPiece));
    std::transform(values.begin(), values.begin() + halves.size(), halves.begin(), encode);
    ABSTRACT_RETURN_IF_ERROR(sink(AsBytes(halves.data(), halves.size() * sizeof(uint16_t))));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorSource> SourceOf(const TensorToWrite& tensor) {
  const absl::Span<const float> values = tensor.values;
  TensorSource source{tensor.name, tensor.dtype, tensor.shape, {}};
  switch (tensor.dtype) {
    case NumberFormat::kFloat32:
      source.write = [=](const ByteSink& sink) {
        return sink(AsBytes(values.data(), values.size() * sizeof(float)));
      };
      return source;
    case NumberFormat::kFloat16:
      source.write = [=](const ByteSink& sink) { return WriteHalves(values, FloatToFloat16, sink); };
      return source;
    case NumberFormat::kBFloat16:
      source.write = [=](const ByteSink& sink) { return WriteHalves(values, FloatToBFloat16, sink); };
      return source;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("cannot write tensor '", tensor.name, "' as ", DTypeName(tensor.dtype)));
  }
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

absl::StatusOr<std::string> SafetensorsPrologue(absl::Span<const TensorSource> tensors,
                                                const std::map<std::string, std::string>& metadata) {
  ABSTRACT_ASSIGN_OR_RETURN(Layout layout, LayOut(tensors, metadata));
  return std::move(layout.prologue);
}

absl::Status WriteSafetensorsFile(const std::string& path, absl::Span<const TensorSource> tensors,
                                  const std::map<std::string, std::string>& metadata) {
  ABSTRACT_ASSIGN_OR_RETURN(const Layout layout, LayOut(tensors, metadata));
  ABSTRACT_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Create(path));
  ABSTRACT_RETURN_IF_ERROR(file.WriteAt(0, AsBytes(layout.prologue.data(), layout.prologue.size())));
  for (size_t i = 0; i < tensors.size(); ++i) {
    ABSTRACT_RETURN_IF_ERROR(WriteTensor(tensors[i], layout.offsets[i], layout.bytes[i], file));
  }
  return file.SyncAndClose();
}

absl::Status WriteSafetensors(const std::string& link, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  ABSTRACT_ASSIGN_OR_RETURN(const std::string path, FileToReplace(link));
  std::vector<TensorSource> sources;
  for (const TensorToWrite& tensor : tensors) {
    ABSTRACT_ASSIGN_OR_RETURN(sources.emplace_back(), SourceOf(tensor));
  }
  // The process id keeps two programs apart that write the same file.
  const std::string temporary = absl::StrCat(path, ".tmp", ::getpid());
  absl::Status status = WriteSafetensorsFile(temporary, sources, metadata);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

}  // namespace mechinterp::engine
