#include "services/model/engine/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/float16.h"

namespace mechinterp::engine {
namespace {

struct DTypeEntry {
  DType dtype;
  absl::string_view name;
  int bytes;
};
constexpr DTypeEntry kDTypes[] = {
    {DType::kF32, "F32", 4}, {DType::kF16, "F16", 2},   {DType::kBF16, "BF16", 2},
    {DType::kI64, "I64", 8}, {DType::kI32, "I32", 4},   {DType::kU8, "U8", 1},
    {DType::kI8, "I8", 1},   {DType::kBool, "BOOL", 1}, {DType::kF64, "F64", 8},
};

std::optional<DType> ParseDType(absl::string_view name) {
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

absl::Status Malformed(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": not a valid safetensors file: ", what));
}

// One tensor's header entry as a view into `data`.
absl::StatusOr<TensorView> ParseTensor(const std::string& path, const std::string& name,
                                       const nlohmann::json& entry, absl::Span<const std::byte> data) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2) {
    return Malformed(path, absl::StrCat("tensor '", name, "' lacks dtype, shape or data_offsets"));
  }
  TensorView view;
  std::optional<DType> dtype = ParseDType(entry["dtype"].get<std::string>());
  if (!dtype) {
    return absl::UnimplementedError(absl::StrCat(path, ": tensor '", name, "' has dtype ",
                                                 entry["dtype"].get<std::string>(),
                                                 ", which is not supported"));
  }
  view.dtype = *dtype;
  uint64_t expected_bytes = ByteWidth(view.dtype);
  for (const nlohmann::json& dim : entry["shape"]) {
    if (!dim.is_number_unsigned())
      return Malformed(path, absl::StrCat("tensor '", name, "' has a bad shape"));
    view.shape.push_back(dim.get<int64_t>());
    if (__builtin_mul_overflow(expected_bytes, dim.get<uint64_t>(), &expected_bytes)) {
      return Malformed(path, absl::StrCat("tensor '", name, "' has an impossibly large shape"));
    }
  }
  const nlohmann::json& offsets = entry["data_offsets"];
  if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
    return Malformed(path, absl::StrCat("tensor '", name, "' has bad data_offsets"));
  }
  const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > data.size()) {
    return Malformed(path, absl::StrCat("tensor '", name, "' ends at byte ", end, " of ", data.size(),
                                        " bytes of data; the file is truncated or its header is wrong"));
  }
  if (end - begin != expected_bytes) {
    return Malformed(path, absl::StrCat("tensor '", name, "' occupies ", end - begin,
                                        " bytes, its shape needs ", expected_bytes));
  }
  view.bytes = data.subspan(begin, end - begin);
  return view;
}

absl::Status CheckNoOverlap(const std::string& path,
                            const std::map<std::string, TensorView, std::less<>>& tensors) {
  std::vector<std::pair<absl::Span<const std::byte>, const std::string*>> ranges;
  for (const auto& [name, view] : tensors) {
    if (!view.bytes.empty()) ranges.emplace_back(view.bytes, &name);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.first.data() < b.first.data(); });
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i - 1].first.data() + ranges[i - 1].first.size() > ranges[i].first.data()) {
      return Malformed(
          path, absl::StrCat("tensors '", *ranges[i - 1].second, "' and '", *ranges[i].second, "' overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

int ByteWidth(DType dtype) {
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.dtype == dtype) return entry.bytes;
  }
  return 0;
}

absl::string_view DTypeName(DType dtype) {
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.dtype == dtype) return entry.name;
  }
  return "?";
}

absl::StatusOr<HostTensor> ToHostTensor(const TensorView& view) {
  HostTensor tensor{view.shape, {}};
  const int64_t count = ElementCount(view.shape);
  tensor.values.resize(count);
  switch (view.dtype) {
    case DType::kF32:
      std::memcpy(tensor.values.data(), view.bytes.data(), count * sizeof(float));
      return tensor;
    case DType::kF16:
    case DType::kBF16: {
      for (int64_t i = 0; i < count; ++i) {
        uint16_t bits;  // the mapping need not be aligned
        std::memcpy(&bits, view.bytes.data() + 2 * i, 2);
        tensor.values[i] = view.dtype == DType::kF16 ? Float16ToFloat(bits) : BFloat16ToFloat(bits);
      }
      return tensor;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", DTypeName(view.dtype), " where F32, F16 or BF16 is needed"));
  }
}

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;

  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::PermissionDeniedError(message);
  }
  struct stat info;
  const bool is_file = ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  const uint64_t file_bytes = is_file ? info.st_size : 0;
  if (is_file && file_bytes >= 8) {
    void* mapping = ::mmap(nullptr, file_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping != MAP_FAILED) {
      file->mapping_ = mapping;
      file->mapping_bytes_ = file_bytes;
    }
  }
  ::close(fd);
  if (!is_file) return Malformed(path, "not a regular file");
  if (file_bytes < 8) return Malformed(path, absl::StrCat("only ", file_bytes, " bytes long"));
  if (file->mapping_ == nullptr)
    return absl::ResourceExhaustedError(absl::StrCat(path, ": cannot be mapped"));

  const auto* bytes = static_cast<const std::byte*>(file->mapping_);
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes, 8);
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file_bytes - 8) {
    return Malformed(path,
                     absl::StrCat("header length ", header_bytes, " in a file of ", file_bytes, " bytes"));
  }
  const char* header_text = reinterpret_cast<const char*>(bytes + 8);
  // Duplicate names would silently hide one of the two tensors.
  std::string duplicate;
  std::map<int, std::map<std::string, bool>> seen;
  auto note_duplicates = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::key && depth == 1 &&
        !seen[depth].emplace(parsed.get<std::string>(), true).second) {
      duplicate = parsed.get<std::string>();
    }
    return true;
  };
  const nlohmann::json header = nlohmann::json::parse(header_text, header_text + header_bytes,
                                                      note_duplicates, /*allow_exceptions=*/false);
  if (!header.is_object()) return Malformed(path, "the header is not a JSON object");
  if (!duplicate.empty()) return Malformed(path, absl::StrCat("tensor '", duplicate, "' is listed twice"));

  const absl::Span<const std::byte> data(bytes + 8 + header_bytes, file_bytes - 8 - header_bytes);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return Malformed(path, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (value.is_string()) file->metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    absl::StatusOr<TensorView> view = ParseTensor(path, name, entry, data);
    if (!view.ok()) return view.status();
    file->tensors_.emplace(name, *std::move(view));
  }
  if (absl::Status status = CheckNoOverlap(path, file->tensors_); !status.ok()) return status;
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapping_bytes_);
}

const TensorView* SafetensorsFile::Find(absl::string_view name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

absl::Status WriteSafetensors(const std::string& path, absl::Span<const TensorToWrite> tensors,
                              const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot write tensor '", tensor.name, "' as ", DTypeName(tensor.dtype)));
    }
    if (ElementCount(tensor.shape) != static_cast<int64_t>(tensor.values.size())) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", tensor.name, "' has ", tensor.values.size(),
                                                     " values, its shape needs ",
                                                     ElementCount(tensor.shape)));
    }
    const uint64_t bytes = tensor.values.size() * ByteWidth(tensor.dtype);
    header[tensor.name] = {{"dtype", std::string(DTypeName(tensor.dtype))},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string header_text = header.dump();
  header_text.resize((header_text.size() + 7) / 8 * 8, ' ');  // data starts aligned

  const std::string temporary = absl::StrCat(path, ".tmp", ::getpid());
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  const uint64_t header_bytes = header_text.size();
  out.write(reinterpret_cast<const char*>(&header_bytes), 8);
  out.write(header_text.data(), static_cast<std::streamsize>(header_text.size()));
  for (const TensorToWrite& tensor : tensors) {
    if (tensor.dtype == DType::kF32) {
      out.write(reinterpret_cast<const char*>(tensor.values.data()),
                static_cast<std::streamsize>(tensor.values.size() * sizeof(float)));
      continue;
    }
    std::vector<uint16_t> halves(tensor.values.size());
    std::transform(tensor.values.begin(), tensor.values.end(), halves.begin(),
                   tensor.dtype == DType::kF16 ? FloatToFloat16 : FloatToBFloat16);
    out.write(reinterpret_cast<const char*>(halves.data()), static_cast<std::streamsize>(2 * halves.size()));
  }
  out.close();
  std::error_code error;
  if (!out) {
    std::filesystem::remove(temporary, error);
    return absl::UnavailableError(
        absl::StrCat(path, ": cannot be written (is the folder there, the disk full?)"));
  }
  std::filesystem::rename(temporary, path, error);
  if (error) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    return absl::UnavailableError(absl::StrCat(path, ": ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace mechinterp::engine
