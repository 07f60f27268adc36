// A .safetensors file; and the same bytes as the header of a file with 64 bytes of data.

#include <map>
#include <string>
#include <vector>

#include "services/engine/checkpoint/safetensors.h"
#include "services/engine/checkpoint/safetensors_header.h"
#include "services/engine/checkpoint/safetensors_writer.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::engine {
namespace {

using fuzz::Require;

void CheckTensor(const TensorView& view) {
  uint64_t bytes = ByteWidth(view.dtype);
  for (const int64_t dim : view.shape) bytes *= static_cast<uint64_t>(dim);
  Require(bytes == view.bytes.size(), "a tensor has the bytes that its shape needs");
  if (const auto values = ToHostTensor(view); values.ok()) {
    Require(static_cast<int64_t>(values->values.size()) == ElementCount(view.shape), "all values are read");
  }
}

// A file that was accepted can be written, and has the same in it then.
void CheckRewriting(const SafetensorsFile& file) {
  std::vector<TensorSource> sources;
  for (const auto& [name, view] : file.tensors()) {
    sources.push_back(
        {name, view.dtype, view.shape, [bytes = view.bytes](const ByteSink& sink) { return sink(bytes); }});
  }
  const std::map<std::string, std::string> metadata(file.metadata().begin(), file.metadata().end());
  const std::string path = fuzz::ScratchPath("written.safetensors");
  fuzz::RequireOk(WriteSafetensorsFile(path, sources, metadata), "what was read can be written");
  const auto again = SafetensorsFile::Open(path);
  fuzz::RequireOk(again.status(), "what was written can be read");
  Require((*again)->metadata() == file.metadata(), "metadata come back");
  Require((*again)->tensors().size() == file.tensors().size(), "as many tensors come back");
  for (const auto& [name, view] : file.tensors()) {
    const TensorView* const found = (*again)->Find(name);
    Require(found != nullptr && found->dtype == view.dtype && found->shape == view.shape &&
                found->bytes == view.bytes,
            "each tensor comes back");
  }
}

void CheckFile(std::string_view content) {
  const std::string path = fuzz::ScratchFile("read.safetensors", content);
  const auto file = SafetensorsFile::Open(path);
  if (!file.ok()) return fuzz::RequireRefusal(file.status(), path);
  for (const auto& [name, view] : (*file)->tensors()) CheckTensor(view);
  CheckRewriting(**file);
}

}  // namespace
}  // namespace mechinterp::engine

ABSTRACT_FUZZ_TARGET(safetensors) {
  using namespace mechinterp::engine;
  constexpr size_t kDataBytes = 64;
  CheckFile(input);
  std::string file;
  for (size_t i = 0; i < sizeof(uint64_t); ++i) file.push_back(static_cast<char>(input.size() >> (8 * i)));
  file.append(input).append(kDataBytes, '\x3c');
  CheckFile(file);
}
