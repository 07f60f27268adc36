#ifndef SERVICES_ENGINE_METAL_KERNEL_LIBRARY_H_
#define SERVICES_ENGINE_METAL_KERNEL_LIBRARY_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/engine/kernels/number_format.h"
#include "services/engine/metal/shader_types.h"

namespace mechinterp::engine::metal {

// What the Metal kernels are called and how each is launched. Plain C++, no
// libtorch, the same on every platform. Thread-safe.

// How a matrix [out, in] lies in the device's memory, by its format: row-major, two arrays.
//   kNf4   bitsandbytes' layout: uint8 codes [ceil(out * in / 2)], the first of a
//          byte in the high nibble; fp32 absmax [ceil(out * in / 64)], blocks over
//          the flattened matrix. Products have the type of the activations.
//   kInt8  int8 weights [out * in]; fp32 scales [out, ceil(in / 64)]. Products are fp32.
// Kernels are there for the formats that have a metal_name, and for operands of fp32, fp16 and
// bf16.

// How kernels find NF4's 16 values: asking each other's registers, or in
// threadgroup memory. The same numbers; which is faster only a Mac can tell.
enum class Nf4Lookup { kShuffle, kThreadgroup };

// The source of all kernels, ASCII, for the Metal compiler.
std::string KernelSource(Nf4Lookup lookup = Nf4Lookup::kShuffle);

// More rows than this are cheaper by dequantizing panels for a matrix product
// (README.md has the arithmetic).
inline constexpr int64_t kMaxLinearRows = 32;

// One launch. Buffers by index: 0 codes or weights, 1 absmax or scales, then
//   linear      2 x [rows, in], 3 y [rows, out], 4 the arguments
//   dequantize  2 panel [rows, in], 3 the arguments
struct Launch {
  std::string kernel;
  std::array<uint64_t, 2> threads{};     // of the whole grid: whole threadgroups
  std::array<uint64_t, 2> group_size{};  // threads of a threadgroup
  MetalLinearArguments arguments{};
};

// y[rows, out] = x[rows, in] w[out, in]^T. `aligned`: x, y and w's arrays start at
// multiples of 16 bytes; slower kernels serve what is not, and `in` that is not a
// multiple of 16. InvalidArgument for empty sizes and for arrays of 2^32 elements or
// more, which the kernels' 32-bit indices cannot reach.
absl::StatusOr<Launch> LinearLaunch(NumberFormat format, NumberFormat operand, int64_t rows, int64_t in,
                                    int64_t out, bool aligned);

// panel[outputs, in] = rows [first_output, first_output + outputs) of w, rounded to
// the type. Fails as above, and if the panel reaches past the matrix.
absl::StatusOr<Launch> DequantizeLaunch(NumberFormat format, NumberFormat operand, int64_t in, int64_t out,
                                        int64_t first_output, int64_t outputs, bool aligned);

// The names of all kernels that the two functions can ask for.
std::vector<std::string> KernelNames();

}  // namespace mechinterp::engine::metal

#endif  // SERVICES_ENGINE_METAL_KERNEL_LIBRARY_H_
