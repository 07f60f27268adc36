#include "tests/benchmarks/measurement.h"

#include <sys/resource.h>

#include <algorithm>
#include <iomanip>
#include <limits>
#include <ostream>

#include "absl/strings/str_format.h"

namespace mechinterp::benchmarks {
namespace {

// ru_maxrss is in bytes on macOS and in KiB elsewhere.
int64_t PeakBytes(int who) {
  rusage usage{};
  if (::getrusage(who, &usage) != 0) return 0;
#ifdef __APPLE__
  return usage.ru_maxrss;
#else
  return int64_t{usage.ru_maxrss} * 1024;
#endif
}

}  // namespace

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void Measurements::Add(const std::string& name, const std::string& unit, double value) {
  const auto found =
      std::find_if(series_.begin(), series_.end(), [&](const Series& series) { return series.name == name; });
  if (found != series_.end()) {
    found->values.push_back(value);
  } else {
    series_.push_back({name, unit, {value}});
  }
}

void Measurements::AddRatio(const std::string& name, double ours, double theirs) {
  if (theirs > 0) Add(name, "x", ours / theirs);
}

void Measurements::Print(std::ostream& out) const {
  size_t name_width = 0;
  for (const Series& series : series_) name_width = std::max(name_width, series.name.size());
  for (const Series& series : series_) {
    const auto [smallest, largest] = std::minmax_element(series.values.begin(), series.values.end());
    out << "  " << std::left << std::setw(static_cast<int>(name_width)) << series.name
        << absl::StrFormat("  %10.4g %-9s", Median(series.values), series.unit)
        << absl::StrFormat(" [%.4g, %.4g]\n", *smallest, *largest);
  }
}

int64_t PeakResidentMemory() { return PeakBytes(RUSAGE_SELF); }

int64_t PeakResidentMemoryOfChildren() { return PeakBytes(RUSAGE_CHILDREN); }

std::string FormatBytes(int64_t bytes) {
  return absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace mechinterp::benchmarks
