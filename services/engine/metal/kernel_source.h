#ifndef SERVICES_ENGINE_METAL_KERNEL_SOURCE_H_
#define SERVICES_ENGINE_METAL_KERNEL_SOURCE_H_

namespace mechinterp::engine::metal {

// The shader files one after the other, put into the program by CMake.
extern const char kKernelSource[];

}  // namespace mechinterp::engine::metal

#endif  // SERVICES_ENGINE_METAL_KERNEL_SOURCE_H_
