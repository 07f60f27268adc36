#include "services/model/stored_run.h"

#include <algorithm>
#include <utility>

namespace mechinterp {
namespace {

constexpr size_t kTreeNodeBytes = 4 * sizeof(void*);     // of std::map, beside its value
constexpr size_t kSharedCountBytes = 2 * sizeof(void*);  // of std::make_shared
constexpr int64_t kValueBytes = sizeof(float);

template <typename Value>
int64_t HeapBytesOf(const std::vector<Value>& values) {
  return HeapBytes(values.capacity() * sizeof(Value));
}

int64_t HeapBytesOf(const std::string& text) {
  return text.capacity() <= std::string().capacity() ? 0 : HeapBytes(text.capacity() + 1);
}

// Of a run whose vectors take so many bytes.
int64_t RunObjects(int64_t activations) {
  constexpr size_t kNode = kTreeNodeBytes + sizeof(decltype(engine::RecordedRun::activations)::value_type);
  return HeapBytes(kSharedCountBytes + sizeof(engine::RecordedRun)) +
         HeapBytes(kSharedCountBytes + sizeof(ResidentRun)) + activations * HeapBytes(kNode);
}

int64_t ValueCount(const StoredRunInfo::Activation& activation) {
  return activation.shape[0] * activation.shape[1] * activation.shape[2];
}

}  // namespace

StoredRunInfo DescribeRun(const engine::RecordedRun& run) {
  StoredRunInfo info;
  info.prompt = run.prompt;
  info.activations.reserve(run.activations.size());
  for (const auto& [site, recorded] : run.activations) {
    StoredRunInfo::Activation& activation = info.activations.emplace_back();
    activation.site = site;
    std::copy_n(recorded.values.shape.begin(), activation.shape.size(), activation.shape.begin());
  }
  return info;
}

int64_t ByteCount(const engine::RecordedRun& run) {
  int64_t bytes = 0;
  for (const auto& [site, recorded] : run.activations) bytes += recorded.values.size() * kValueBytes;
  return bytes;
}

int64_t ByteCount(const StoredRunInfo& info) {
  int64_t bytes = 0;
  for (const auto& activation : info.activations) bytes += ValueCount(activation) * kValueBytes;
  return bytes;
}

int64_t HeapBytes(size_t size) {
  // glibc: a word before each block, blocks of 16 bytes, two at least.
  if (size == 0) return 0;
  return static_cast<int64_t>(std::max<size_t>(32, (size + sizeof(size_t) + 15) / 16 * 16));
}

int64_t FootprintBytes(const engine::RecordedRun& run) {
  int64_t bytes = RunObjects(static_cast<int64_t>(run.activations.size())) + HeapBytesOf(run.prompt.ids);
  for (const auto& [site, recorded] : run.activations) {
    bytes += HeapBytesOf(recorded.values.shape) + HeapBytesOf(recorded.values.values) +
             HeapBytesOf(recorded.positions);
  }
  return bytes;
}

int64_t FootprintBytes(const StoredRunInfo& info) {
  return HeapBytes(kSharedCountBytes + sizeof(StoredRunInfo)) + HeapBytesOf(info.handle) +
         HeapBytesOf(info.owner) + HeapBytesOf(info.prompt.ids) + HeapBytesOf(info.activations);
}

int64_t RunFootprintBytes(const StoredRunInfo& info) {
  int64_t bytes = RunObjects(static_cast<int64_t>(info.activations.size())) +
                  HeapBytes(info.prompt.ids.size() * sizeof(engine::TokenId));
  for (const auto& activation : info.activations) {
    bytes += HeapBytes(activation.shape.size() * sizeof(int64_t)) +
             HeapBytes(ValueCount(activation) * kValueBytes) + HeapBytes(activation.shape[0] * sizeof(int));
  }
  return bytes;
}

ResidentRun::ResidentRun(std::shared_ptr<const engine::RecordedRun> run,
                         std::shared_ptr<std::atomic<int64_t>> total)
    : run_(std::move(run)), total_(std::move(total)), bytes_(FootprintBytes(*run_)) {
  *total_ += bytes_;
}

ResidentRun::~ResidentRun() { *total_ -= bytes_; }

std::shared_ptr<const engine::RecordedRun> ResidentRun::RunOf(std::shared_ptr<const ResidentRun> resident) {
  const engine::RecordedRun* run = resident->run_.get();
  return {std::move(resident), run};
}

}  // namespace mechinterp
