#include "services/engine/metal/kernel_library.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/engine/metal/kernel_source.h"

namespace mechinterp::engine::metal {
namespace {

// As in linear.metal.
constexpr uint64_t kGroupThreads = 64;
constexpr int64_t kGroupOutputs = 2 * 4;  // of a threadgroup, linear_rows
constexpr int64_t kGroupOutputsAny = 2;   // linear_any
constexpr int64_t kChunk = 16;  // weights of a lane, a step of linear_rows or a thread of dequantize
constexpr int64_t kTiles[] = {1, 2, 4, 6, 8};  // rows that a threadgroup can make
constexpr int64_t kMaxTile = 8;

// A kernel's name up to the size it is made for: "nf4_linear_half".
std::string KernelName(NumberFormat format, const char* what, NumberFormat operand) {
  return absl::StrCat(std::string(InfoOf(format).metal_name), "_", what, "_",
                      std::string(InfoOf(operand).metal_operand));
}

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows of a tile: as few tiles as can be, and those no larger than needed, since rows
// past the last are computed for nothing.
int64_t TileRows(int64_t rows) {
  const int64_t needed = CeilDiv(rows, CeilDiv(rows, kMaxTile));
  // At most kMaxTile, so there is one; the analyzer does not divide.
  // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.UndefReturn)
  return *std::lower_bound(std::begin(kTiles), std::end(kTiles), needed);
}

bool Indexable(int64_t a, int64_t b) { return a <= INT64_C(0xffffffff) / b; }

absl::Status CheckSizes(int64_t rows, int64_t in, int64_t out) {
  if (rows < 1 || in < 1 || out < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("Metal kernels want sizes above 0, not rows ", rows, ", in ", in, ", out ", out));
  }
  if (!Indexable(in, out) || !Indexable(rows, in) || !Indexable(rows, out)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows ", rows, ", in ", in, ", out ", out,
                     ": an array has more elements than Metal kernels can index, 2^32 - 1"));
  }
  return absl::OkStatus();
}

MetalLinearArguments Arguments(int64_t rows, int64_t in, int64_t out, int64_t first_output) {
  return {static_cast<uint32_t>(rows), static_cast<uint32_t>(in), static_cast<uint32_t>(out),
          static_cast<uint32_t>(first_output)};
}

Launch MakeLaunch(std::string kernel, int64_t groups_x, int64_t groups_y,
                  const MetalLinearArguments& arguments) {
  return {std::move(kernel),
          {static_cast<uint64_t>(groups_x) * kGroupThreads, static_cast<uint64_t>(groups_y)},
          {kGroupThreads, 1},
          arguments};
}

}  // namespace

std::string KernelSource(Nf4Lookup lookup) {
  return absl::StrCat("#define NF4_TABLE_IN_THREADGROUP ", lookup == Nf4Lookup::kThreadgroup ? 1 : 0, "\n",
                      kKernelSource);
}

absl::StatusOr<Launch> LinearLaunch(NumberFormat format, NumberFormat operand, int64_t rows, int64_t in,
                                    int64_t out, bool aligned) {
  const absl::Status checked = CheckSizes(rows, in, out);
  if (!checked.ok()) return checked;
  const std::string name = KernelName(format, "linear", operand) + "_";
  const MetalLinearArguments arguments = Arguments(rows, in, out, 0);
  if (!aligned || in % kChunk != 0) {
    return MakeLaunch(name + "any", CeilDiv(out, kGroupOutputsAny), rows, arguments);
  }
  const int64_t tile = TileRows(rows);
  return MakeLaunch(absl::StrCat(name, tile), CeilDiv(out, kGroupOutputs), CeilDiv(rows, tile), arguments);
}

absl::StatusOr<Launch> DequantizeLaunch(NumberFormat format, NumberFormat operand, int64_t in, int64_t out,
                                        int64_t first_output, int64_t outputs, bool aligned) {
  const absl::Status checked = CheckSizes(outputs, in, out);
  if (!checked.ok()) return checked;
  if (first_output < 0 || outputs > out || first_output > out - outputs) {
    return absl::InvalidArgumentError(absl::StrCat("no outputs [", first_output, ", ", first_output, " + ",
                                                   outputs, ") in a matrix of ", out));
  }
  const bool chunks = aligned && in % kChunk == 0;
  const int64_t threads = chunks ? in / kChunk : in;
  return MakeLaunch(KernelName(format, "dequantize", operand) + (chunks ? "" : "_any"),
                    CeilDiv(threads, kGroupThreads), outputs, Arguments(outputs, in, out, first_output));
}

std::vector<std::string> KernelNames() {
  std::vector<std::string> names;
  for (const NumberFormatInfo& format : AllNumberFormats()) {
    if (format.metal_name.empty()) continue;
    for (const NumberFormatInfo& operand : AllNumberFormats()) {
      if (operand.metal_operand.empty()) continue;
      const std::string linear = KernelName(format.format, "linear", operand.format) + "_";
      for (int64_t tile : kTiles) names.push_back(absl::StrCat(linear, tile));
      names.push_back(linear + "any");
      const std::string dequantize = KernelName(format.format, "dequantize", operand.format);
      names.push_back(dequantize);
      names.push_back(dequantize + "_any");
    }
  }
  return names;
}

}  // namespace mechinterp::engine::metal
