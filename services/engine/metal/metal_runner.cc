#include "services/engine/metal/metal_runner.h"

// Set from outside to have the branch parsed where it cannot run.
#if !defined(ABSTRACT_HAS_METAL_LIBRARY) && defined(__APPLE__) && \
    __has_include(<ATen/native/mps/MetalShaderLibrary.h>)
#define ABSTRACT_HAS_METAL_LIBRARY 1
#endif

#if ABSTRACT_HAS_METAL_LIBRARY
#include <ATen/Context.h>
#include <ATen/native/mps/MetalShaderLibrary.h>

#include <exception>
#include <memory>
#include <unordered_map>
#endif

#include "absl/strings/str_cat.h"

namespace mechinterp::engine::metal {

#if ABSTRACT_HAS_METAL_LIBRARY
namespace {

using at::native::mps::DynamicMetalShaderLibrary;
using at::native::mps::MetalKernelFunction;

class MetalRunner final : public KernelRunner {
 public:
  explicit MetalRunner(const std::string& source) : library_(source) {}

  absl::Status Run(const Launch& launch, absl::Span<const at::Tensor> buffers) override {
    try {
      const std::shared_ptr<MetalKernelFunction>& function = Function(launch.kernel);
      // Not from inside another command block: they do not nest.
      function->runCommandBlock([&] {
        function->startEncoding();
        unsigned index = 0;
        for (const at::Tensor& buffer : buffers) function->setArg(index++, buffer);
        function->setArg(index, launch.arguments);
        function->dispatch(c10::ArrayRef<uint64_t>(launch.threads),
                           c10::ArrayRef<uint64_t>(launch.group_size));
      });
      return absl::OkStatus();
    } catch (const std::exception& error) {
      return absl::InternalError(absl::StrCat("Metal kernel ", launch.kernel, ": ", error.what()));
    }
  }

 private:
  // Made for the device at its first use, then kept.
  const std::shared_ptr<MetalKernelFunction>& Function(const std::string& name) {
    std::shared_ptr<MetalKernelFunction>& function = functions_[name];
    if (function == nullptr) function = library_.getKernelFunction(name);
    return function;
  }

  DynamicMetalShaderLibrary library_;  // compiles on construction, throws if it cannot
  std::unordered_map<std::string, std::shared_ptr<MetalKernelFunction>> functions_;
};

}  // namespace

absl::StatusOr<KernelRunner*> StartMetalRunner(Nf4Lookup lookup) {
  try {
    if (!at::hasMPS()) return absl::UnavailableError("libtorch sees no Metal device");
    return new MetalRunner(KernelSource(lookup));
  } catch (const std::exception& error) {
    return absl::InternalError(
        absl::StrCat("the Metal kernels do not compile on this machine: ", error.what()));
  }
}

#else

absl::StatusOr<KernelRunner*> StartMetalRunner(Nf4Lookup) {
  return absl::UnimplementedError(
      "this build has no Metal kernels: they need macOS and libtorch 2.6 or newer");
}

#endif

}  // namespace mechinterp::engine::metal
