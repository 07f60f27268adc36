#ifndef SERVICES_ENGINE_WEIGHTS_LINEAR_WEIGHT_H_
#define SERVICES_ENGINE_WEIGHTS_LINEAR_WEIGHT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/engine/checkpoint/checkpoint.h"
#include "services/engine/device/device.h"
#include "services/engine/kernels/matrix.h"

namespace mechinterp::engine {

struct DeviceMatrix;

// A matrix that rows of activations are multiplied by. Movable; thread-safe.
struct LinearWeight {
  kernels::PackedMatrix matrix;  // [out, in]; without data where `device` holds it
  // Where libtorch computes.
  std::shared_ptr<const DeviceMatrix> device;
  at::Tensor bias;  // [out], fp32, where the matrix is; undefined: none

  int64_t in() const { return matrix.in; }
  int64_t out() const { return matrix.out; }
  int64_t bytes() const;
};

// How a matrix is wanted. kNf4 is held as kFloat32 or kBFloat16, dequantized, where
// its rows cannot be packed (kernels::CanHold).
struct MatrixFormat {
  NumberFormat format = NumberFormat::kFloat32;
  NumberFormat compute = NumberFormat::kFloat32;
  bool double_quantization = false;  // when this quantizes
  Device device = {};
  // Whether the values are those that quantizing to NF4 leaves, though they are held unquantized.
  bool through_nf4 = false;
};

// The format that holds unquantized values of a stored type without loss in this
// arithmetic: as they are where the CPU can hold them so, else as fp32; bf16 for bf16
// arithmetic. libtorch wants them in the type of the arithmetic.
NumberFormat UnquantizedFormat(NumberFormat stored, NumberFormat compute, const Device& device);

// Reads a matrix without its bias, in any floating-point type or as NF4, and packs it or puts it into
// the device's memory. Lets go of the mapped pages it has read. Uses the pool of
// kernels/parallel.h. InvalidArgument naming the tensor when it is missing, of the wrong
// shape or not finite. Throws what libtorch does.
absl::StatusOr<LinearWeight> LoadLinear(const Checkpoint& checkpoint, const std::string& name, int64_t out,
                                        int64_t in, const MatrixFormat& format);

// The format that LoadLinear's result has, and the bytes it takes.
NumberFormat HeldFormat(int64_t in, const MatrixFormat& format);
int64_t HeldBytes(int64_t out, int64_t in, const MatrixFormat& format);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_WEIGHTS_LINEAR_WEIGHT_H_
