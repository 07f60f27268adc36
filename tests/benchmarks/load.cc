// Loading a model, beside reading its files.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <ostream>

#include "services/common/status_macros.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

// Makes the system forget a file's cached pages, so that it is read from the disk
// again. False where that cannot be asked for.
bool Forget(const std::filesystem::path& path) {
#if defined(POSIX_FADV_DONTNEED)
  const int file = ::open(path.c_str(), O_RDONLY);
  if (file < 0) return false;
  const bool forgotten = ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0;
  ::close(file);
  return forgotten;
#else
  return false;
#endif
}

bool ForgetAll(const std::vector<std::filesystem::path>& files) {
  return std::all_of(files.begin(), files.end(), Forget);
}

absl::StatusOr<int64_t> ReadAll(const std::vector<std::filesystem::path>& files) {
  int64_t bytes = 0;
  std::vector<char> buffer(size_t{4} << 20);
  for (const std::filesystem::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || file.gcount() > 0) {
      bytes += file.gcount();
    }
    if (!file.eof()) return absl::UnknownError("cannot read " + path.string());
  }
  return bytes;
}

}  // namespace

absl::Status RunLoad(const BenchmarkOptions& options, std::ostream& out) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(options.model, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (files.empty()) return absl::NotFoundError(options.model + " has no .safetensors");

  Measurements measurements;
  bool cold = true;
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    cold = ForgetAll(files) && cold;
    const Clock::time_point start = Clock::now();
    ABSTRACT_ASSIGN_OR_RETURN(const int64_t bytes, ReadAll(files));
    const double reading = SecondsSince(start);
    cold = ForgetAll(files) && cold;
    const Clock::time_point load_start = Clock::now();
    ABSTRACT_ASSIGN_OR_RETURN(const auto model, LoadModel(options));
    const double loading = SecondsSince(load_start);
    measurements.Add("reading the files", "s", reading);
    measurements.Add("files, read", "GB/s", static_cast<double>(bytes) / reading / 1e9);
    measurements.Add("loading the model", "s", loading);
    measurements.AddRatio("loading / reading", loading, reading);
    measurements.Add("weights in memory", "GB", static_cast<double>(model->total_weight_bytes()) / 1e9);
  }
  out << (cold ? "  files dropped from the system's cache before each\n"
               : "  files may be in the system's cache\n");
  measurements.Print(out);
  return absl::OkStatus();
}

}  // namespace mechinterp::benchmarks
