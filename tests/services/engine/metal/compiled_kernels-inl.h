// Compiles the shader source as C++ into namespace SHADER_NAMESPACE, with
// NF4_TABLE_IN_THREADGROUP as the including file sets it, and lists the kernels.
#include "tests/services/engine/metal/compiled_kernels.h"

// The order matters: the first of these redefines words that other headers use, the
// last takes them back.
// clang-format off
#include <metal_stdlib>

// Outside our namespaces: the shaders' "using namespace metal" must find the stand-in.
namespace SHADER_NAMESPACE {
namespace {

#include "services/engine/metal/kernels.metal"
#include <metal_end.h>
// clang-format on

using mechinterp::engine::metal::BoundKernel;

// The two signatures: buffers, the arguments, the thread's place.
template <typename A, typename B, typename C, typename D>
BoundKernel Bind(void (*function)(A*, B*, C*, D*, const MetalLinearArguments&, uint3, ushort, ushort)) {
  return {5, [function](void* const* buffers, const metal_shim::ThreadPosition& at) {
            function(static_cast<A*>(buffers[0]), static_cast<B*>(buffers[1]), static_cast<C*>(buffers[2]),
                     static_cast<D*>(buffers[3]), *static_cast<const MetalLinearArguments*>(buffers[4]),
                     uint3{at.group[0], at.group[1], at.group[2]}, at.simdgroup, at.lane);
          }};
}
template <typename A, typename B, typename C>
BoundKernel Bind(void (*function)(A*, B*, C*, const MetalLinearArguments&, uint3, ushort, ushort)) {
  return {4, [function](void* const* buffers, const metal_shim::ThreadPosition& at) {
            function(static_cast<A*>(buffers[0]), static_cast<B*>(buffers[1]), static_cast<C*>(buffers[2]),
                     *static_cast<const MetalLinearArguments*>(buffers[3]),
                     uint3{at.group[0], at.group[1], at.group[2]}, at.simdgroup, at.lane);
          }};
}

#define ADD(NAME) \
  { #NAME, Bind(&NAME) }
#define ADD_KERNELS(FORMAT, T)                                                                    \
  ADD(FORMAT##_linear_##T##_1), ADD(FORMAT##_linear_##T##_2), ADD(FORMAT##_linear_##T##_4),       \
      ADD(FORMAT##_linear_##T##_6), ADD(FORMAT##_linear_##T##_8), ADD(FORMAT##_linear_##T##_any), \
      ADD(FORMAT##_dequantize_##T), ADD(FORMAT##_dequantize_##T##_any)

}  // namespace

const std::map<std::string, BoundKernel>& Kernels() {
  static const auto& kernels = *new std::map<std::string, BoundKernel>{
      ADD_KERNELS(nf4, float),  ADD_KERNELS(nf4, half),  ADD_KERNELS(nf4, bfloat),
      ADD_KERNELS(int8, float), ADD_KERNELS(int8, half), ADD_KERNELS(int8, bfloat)};
  return kernels;
}

}  // namespace SHADER_NAMESPACE
