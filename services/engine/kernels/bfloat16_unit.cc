#include "services/engine/kernels/bfloat16_unit.h"

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace mechinterp::engine::kernels {
namespace {

#if defined(__x86_64__)

bool HasTiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  unsigned eax, ebx, ecx, edx;
  constexpr unsigned kAmxBFloat16 = 1u << 22, kAmxTile = 1u << 24;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kAmxBFloat16) == 0 || (edx & kAmxTile) == 0) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

BFloat16Unit Detect() {
  if (!__builtin_cpu_supports("avx512bf16")) return BFloat16Unit::kNone;
  return HasTiles() ? BFloat16Unit::kTiles : BFloat16Unit::kPairs;
}

#else

BFloat16Unit Detect() { return BFloat16Unit::kNone; }

#endif

std::atomic<BFloat16Unit> limit{BFloat16Unit::kTiles};

}  // namespace

BFloat16Unit DetectedBFloat16Unit() {
  static const BFloat16Unit detected = Detect();
  return std::min(detected, limit.load(std::memory_order_relaxed));
}

void LimitBFloat16Unit(BFloat16Unit most) { limit = most; }

}  // namespace mechinterp::engine::kernels
