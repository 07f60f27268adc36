#include "services/engine/checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/float16.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/engine/checkpoint/safetensors_header.h"

namespace mechinterp::engine {
namespace {

// The file's header text and the bytes after it.
struct Parts {
  absl::string_view header;
  absl::Span<const std::byte> data;
};

absl::StatusOr<Parts> Split(absl::Span<const std::byte> file, const std::string& path) {
  const absl::string_view beginning(reinterpret_cast<const char*>(file.data()),
                                    std::min<size_t>(file.size(), 256));
  if (const absl::string_view what = DescribePlaceholder(beginning); !what.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " ", what));
  }
  uint64_t header_bytes;
  std::memcpy(&header_bytes, file.data(), sizeof(header_bytes));
  file.remove_prefix(sizeof(header_bytes));
  if (header_bytes > kMaxSafetensorsHeaderBytes || header_bytes > file.size()) {
    return MalformedSafetensors(path, absl::StrCat("header length ", header_bytes, " in a file of ",
                                                   file.size() + sizeof(header_bytes), " bytes"));
  }
  return Parts{{reinterpret_cast<const char*>(file.data()), header_bytes}, file.subspan(header_bytes)};
}

// The file, mapped; the descriptor may be closed afterwards.
absl::StatusOr<absl::Span<const std::byte>> MapOpenFile(int descriptor, const std::string& path) {
  struct stat info;
  if (::fstat(descriptor, &info) != 0) return absl::ErrnoToStatus(errno, path);
  if (!S_ISREG(info.st_mode)) return MalformedSafetensors(path, "not a regular file");
  const auto bytes = static_cast<uint64_t>(info.st_size);
  if (bytes < sizeof(uint64_t)) {
    return MalformedSafetensors(path, absl::StrCat("only ", bytes, " bytes long"));
  }
  void* mapping = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (mapping == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot be mapped"));
  return absl::MakeConstSpan(static_cast<const std::byte*>(mapping), bytes);
}

absl::StatusOr<absl::Span<const std::byte>> MapFile(const std::string& path) {
  // Without waiting: a pipe of this name would else hold the program forever.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, path);
  absl::StatusOr<absl::Span<const std::byte>> mapping = MapOpenFile(descriptor, path);
  ::close(descriptor);
  return mapping;
}

// The tensor's place in the data, if it is one.
absl::StatusOr<TensorView> Place(const std::string& path, const std::string& name,
                                 SafetensorsHeader::Entry entry, absl::Span<const std::byte> data) {
  if (entry.begin > entry.end || entry.end > data.size()) {
    return MalformedSafetensors(
        path, absl::StrCat("tensor '", name, "' ends at byte ", entry.end, " of ", data.size(),
                           " bytes of data; the file is truncated or its header is wrong"));
  }
  uint64_t expected_bytes = ByteWidth(entry.dtype);
  for (int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(expected_bytes, static_cast<uint64_t>(dim), &expected_bytes)) {
      return MalformedSafetensors(path, absl::StrCat("tensor '", name, "' has an impossibly large shape"));
    }
  }
  const uint64_t bytes = entry.end - entry.begin;
  if (bytes != expected_bytes) {
    return MalformedSafetensors(path, absl::StrCat("tensor '", name, "' occupies ", bytes,
                                                   " bytes, its shape needs ", expected_bytes));
  }
  return TensorView{entry.dtype, std::move(entry.shape), data.subspan(entry.begin, bytes)};
}

// The format wants the tensors to fill the data, without overlaps, holes, or bytes after the last.
absl::Status CheckTheyFill(const std::string& path, absl::Span<const std::byte> data,
                           const std::map<std::string, TensorView, std::less<>>& tensors) {
  std::vector<std::pair<absl::Span<const std::byte>, const std::string*>> ranges;
  for (const auto& [name, view] : tensors) {
    if (!view.bytes.empty()) ranges.emplace_back(view.bytes, &name);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.first.data() < b.first.data(); });
  const std::byte* filled = data.data();
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto& [bytes, name] = ranges[i];
    if (bytes.data() < filled) {
      return MalformedSafetensors(
          path, absl::StrCat("tensors '", *ranges[i - 1].second, "' and '", *name, "' overlap"));
    }
    if (bytes.data() > filled) {
      return MalformedSafetensors(path, absl::StrCat("no tensor has the ", bytes.data() - filled,
                                                     " bytes before tensor '", *name, "'"));
    }
    filled = bytes.data() + bytes.size();
  }
  if (const auto rest = data.data() + data.size() - filled; rest > 0) {
    return MalformedSafetensors(path, absl::StrCat("no tensor has the last ", rest, " bytes"));
  }
  return absl::OkStatus();
}

// Gives advice about the whole pages in [begin, end), after rounding both outward
// or inward.
enum class Rounding { kOutward, kInward };
void Advise(absl::Span<const std::byte> bytes, Rounding rounding, int advice) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uintptr_t begin = reinterpret_cast<uintptr_t>(bytes.data()), end = begin + bytes.size();
  begin = (rounding == Rounding::kOutward ? begin : begin + page - 1) / page * page;
  end = (rounding == Rounding::kOutward ? end + page - 1 : end) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

absl::string_view DTypeName(NumberFormat dtype) {
  const std::string_view name = InfoOf(dtype).safetensors_name;
  return {name.data(), name.size()};
}

std::optional<NumberFormat> ParseDType(absl::string_view name) {
  for (const NumberFormatInfo& info : AllNumberFormats()) {
    if (!name.empty() && DTypeName(info.format) == name) return info.format;
  }
  return std::nullopt;
}

absl::StatusOr<HostTensor> ToHostTensor(const TensorView& view) {
  HostTensor tensor{view.shape, {}};
  const int64_t count = ElementCount(view.shape);
  tensor.values.resize(count);
  switch (view.dtype) {
    case NumberFormat::kFloat32:
      if (count > 0) std::memcpy(tensor.values.data(), view.bytes.data(), count * sizeof(float));
      return tensor;
    case NumberFormat::kFloat16:
    case NumberFormat::kBFloat16: {
      for (int64_t i = 0; i < count; ++i) {
        uint16_t bits;  // the mapping need not be aligned
        std::memcpy(&bits, view.bytes.data() + 2 * i, 2);
        tensor.values[i] =
            view.dtype == NumberFormat::kFloat16 ? Float16ToFloat(bits) : BFloat16ToFloat(bits);
      }
      return tensor;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("dtype ", DTypeName(view.dtype), " where F32, F16 or BF16 is needed"));
  }
}

void AnnounceSequentialReading(const TensorView& view) {
  if (!view.bytes.empty()) Advise(view.bytes, Rounding::kOutward, MADV_SEQUENTIAL);
}

void ReleasePages(const TensorView& view) { Advise(view.bytes, Rounding::kInward, MADV_DONTNEED); }

absl::StatusOr<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  file->path_ = path;
  ABSTRACT_ASSIGN_OR_RETURN(file->mapping_, MapFile(path));
  ABSTRACT_ASSIGN_OR_RETURN(const Parts parts, Split(file->mapping_, path));
  ABSTRACT_ASSIGN_OR_RETURN(SafetensorsHeader header, ParseSafetensorsHeader(parts.header, path));
  file->metadata_ = std::move(header.metadata);
  for (auto& [name, entry] : header.tensors) {
    ABSTRACT_ASSIGN_OR_RETURN(file->tensors_[name], Place(path, name, std::move(entry), parts.data));
  }
  ABSTRACT_RETURN_IF_ERROR(CheckTheyFill(path, parts.data, file->tensors_));
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapping_.empty()) ::munmap(const_cast<std::byte*>(mapping_.data()), mapping_.size());
}

const TensorView* SafetensorsFile::Find(absl::string_view name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace mechinterp::engine
