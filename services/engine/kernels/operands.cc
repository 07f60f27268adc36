#include "services/engine/kernels/operands.h"

#include <vector>

#include "services/engine/kernels/multiply.h"

namespace mechinterp::engine::kernels {

BFloat16Unit UnitFor(NumberFormat compute) {
  return compute == NumberFormat::kBFloat16 ? UnitInUse() : BFloat16Unit::kNone;
}

uint32_t* KeptOperands(int64_t words) {
  constexpr int64_t kWordsOfALine = 16;
  thread_local std::vector<uint32_t> room;
  const auto size = static_cast<size_t>(words + kWordsOfALine - 1);
  if (room.size() < size) room.resize(size);  // what is taken back would be zeroed again
  const auto line = reinterpret_cast<uintptr_t>(room.data()) / sizeof(uint32_t) % kWordsOfALine;
  return room.data() + (kWordsOfALine - line) % kWordsOfALine;
}

}  // namespace mechinterp::engine::kernels
