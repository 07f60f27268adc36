#include "tests/benchmarks/machine_peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "services/engine/kernels/bfloat16_unit.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/benchmarks/machine_peaks.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::benchmarks {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Twelve independent sums hide the latency of an instruction that two units
// start every cycle, and fit 16 registers together with the two operands. They begin
// with different values: of equal ones the compiler would make one.
#define MECHINTERP_TWELVE_TIMES(STEP) \
  STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)

// Returns the operations done; `result` keeps them from being optimized away, and
// operands that only run time knows keep them from being folded.
double MultiplyAdds(int64_t rounds, const float* operands, float* result) {
  const hn::ScalableTag<float> lanes;
  const auto a = hn::Set(lanes, operands[0]), b = hn::Set(lanes, operands[1]);
#define MECHINTERP_START(i) auto sum##i = hn::Set(lanes, operands[0] + i);
#define MECHINTERP_ADD(i) sum##i = hn::MulAdd(a, b, sum##i);
#define MECHINTERP_TOTAL(i) total = hn::Add(total, sum##i);
  MECHINTERP_TWELVE_TIMES(MECHINTERP_START)
  for (int64_t i = 0; i < rounds; ++i) {
    MECHINTERP_TWELVE_TIMES(MECHINTERP_ADD)
  }
  auto total = hn::Zero(lanes);
  MECHINTERP_TWELVE_TIMES(MECHINTERP_TOTAL)
  *result = hn::GetLane(hn::SumOfLanes(lanes, total));
  return static_cast<double>(rounds) * 12 * 2 * static_cast<double>(hn::Lanes(lanes));
#undef MECHINTERP_START
#undef MECHINTERP_ADD
#undef MECHINTERP_TOTAL
}

// Several streams at once: some memory systems give a core more that way.
template <int kStreams>
HWY_ATTR uint32_t ReadStreams(const uint8_t* data, size_t bytes) {
  const hn::ScalableTag<uint32_t> lanes;
  const size_t step = hn::Lanes(lanes);
  const size_t part = bytes / kStreams / sizeof(uint32_t) / (4 * step) * (4 * step);
  const auto* words = reinterpret_cast<const uint32_t*>(data);
  auto a = hn::Zero(lanes), b = a, c = a, d = a;
  for (size_t i = 0; i < part; i += 4 * step) {
    for (int s = 0; s < kStreams; ++s) {
      const uint32_t* from = words + s * part + i;
      a = hn::Xor(a, hn::Load(lanes, from));
      b = hn::Xor(b, hn::Load(lanes, from + step));
      c = hn::Xor(c, hn::Load(lanes, from + 2 * step));
      d = hn::Xor(d, hn::Load(lanes, from + 3 * step));
    }
  }
  return hn::GetLane(hn::SumOfLanes(lanes, hn::Xor(hn::Xor(a, b), hn::Xor(c, d))));
}

uint32_t ReadAll(const uint8_t* data, size_t bytes, int streams) {
  return streams == 1 ? ReadStreams<1>(data, bytes) : ReadStreams<4>(data, bytes);
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::benchmarks
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#if HWY_ARCH_X86 && (HWY_COMPILER_GCC_ACTUAL || HWY_COMPILER_CLANG)
#include <immintrin.h>
#define MECHINTERP_KNOWS_BFLOAT16 1
#else
#define MECHINTERP_KNOWS_BFLOAT16 0
#endif

namespace mechinterp::benchmarks {
namespace {

HWY_EXPORT(MultiplyAdds);
HWY_EXPORT(ReadAll);

constexpr int kPasses = 5;

// A result that nobody reads may not be left uncomputed.
template <typename T>
void Keep(T result) {
  volatile T kept = result;
  (void)kept;
}

// Runs `work(thread)` on so many threads from a common start; seconds from the
// first one's begin to the last one's end. Threads of its own: none of
// libtorch's then wait, spinning, for work.
double SecondsOnThreads(int threads, const std::function<void(int)>& work) {
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> begins(threads), ends(threads);
  std::atomic<int> arrived{0};
  std::vector<std::thread> running;
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      ++arrived;
      while (arrived < threads) std::this_thread::yield();
      begins[t] = Clock::now();
      work(t);
      ends[t] = Clock::now();
    });
  }
  for (std::thread& thread : running) thread.join();
  const std::chrono::duration<double> elapsed =
      *std::max_element(ends.begin(), ends.end()) - *std::min_element(begins.begin(), begins.end());
  return elapsed.count();
}

// The most operations a second of several passes; `work` returns how many it did.
double BestRate(int threads, const std::function<double(int)>& work) {
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::vector<double> done(threads);
    const double seconds = SecondsOnThreads(threads, [&](int t) { done[t] = work(t); });
    double total = 0;
    for (double operations : done) total += operations;
    best = std::max(best, total / seconds);
  }
  return best;
}

#if MECHINTERP_KNOWS_BFLOAT16
// Highway 1.0.3 has no bf16 products of its own for AVX-512.
__attribute__((target("avx512f,avx512bf16"))) double BFloat16Products(int64_t rounds, uint32_t pair,
                                                                      float* result) {
  const auto a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair));
  const auto b = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair ^ 1));
#define MECHINTERP_START(i) __m512 sum##i = _mm512_set1_ps(i);
#define MECHINTERP_ADD(i) sum##i = _mm512_dpbf16_ps(sum##i, a, b);
#define MECHINTERP_TOTAL(i) total = _mm512_add_ps(total, sum##i);
  MECHINTERP_TWELVE_TIMES(MECHINTERP_START)
  for (int64_t i = 0; i < rounds; ++i) {
    MECHINTERP_TWELVE_TIMES(MECHINTERP_ADD)
  }
  __m512 total = _mm512_setzero_ps();
  MECHINTERP_TWELVE_TIMES(MECHINTERP_TOTAL)
  *result = _mm512_reduce_add_ps(total);
  return static_cast<double>(rounds) * 12 * 16 * 2 * 2;  // 16 lanes, pairs, multiply and add
#undef MECHINTERP_START
#undef MECHINTERP_ADD
#undef MECHINTERP_TOTAL
}
#endif

#if defined(__x86_64__)
// Products of bf16 tiles, 16 x 32 x 16 each, on tiles of zeros.
double TileProducts(int64_t rounds) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shapes;
  asm volatile("ldtilecfg %0" : : "m"(shapes));
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile(
        "tdpbf16ps %tmm6, %tmm4, %tmm0; tdpbf16ps %tmm7, %tmm4, %tmm1;"
        "tdpbf16ps %tmm6, %tmm5, %tmm2; tdpbf16ps %tmm7, %tmm5, %tmm3");
  }
  asm volatile("tilerelease");
  return static_cast<double>(rounds) * 4 * 16 * 32 * 16 * 2;
}
#endif

// About 15 ms at a few GHz.
constexpr int64_t kRounds = 8 << 20;

}  // namespace

PeakMeter::PeakMeter(int threads) : threads_(threads), memory_(size_t{1} << 30) {
  // Untouched memory would be one page of zeros, read from the cache.
  std::memset(memory_.data(), 1, memory_.size());
}

double PeakMeter::ReadBandwidth() {
  constexpr int kReads = 5;
  const size_t part = memory_.size() / threads_ / 4096 * 4096;
  double best = 0;
  for (int streams : {1, 4}) {
    const double seconds = SecondsOnThreads(threads_, [&](int t) {
      for (int i = 0; i < kReads; ++i) {
        Keep(HWY_DYNAMIC_DISPATCH(ReadAll)(memory_.data() + t * part, part, streams));
      }
    });
    best = std::max(best, static_cast<double>(kReads * part * threads_) / seconds);
  }
  return best;
}

double PeakMeter::Float32Peak() {
  const volatile float operand = 1.25f;
  const float operands[] = {operand, operand};
  return BestRate(threads_, [&](int) {
    float result;
    const double operations = HWY_DYNAMIC_DISPATCH(MultiplyAdds)(kRounds, operands, &result);
    Keep(result);
    return operations;
  });
}

double PeakMeter::BFloat16Peak() {
#if MECHINTERP_KNOWS_BFLOAT16
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  const volatile uint32_t ones = 0x3f803f80;
  const uint32_t pair = ones;
  const double pairs = BestRate(threads_, [&](int) {
    float result;
    const double operations = BFloat16Products(kRounds, pair, &result);
    Keep(result);
    return operations;
  });
  if (engine::kernels::DetectedBFloat16Unit() != engine::kernels::BFloat16Unit::kTiles) return pairs;
  return std::max(pairs, BestRate(threads_, [&](int) { return TileProducts(kRounds / 16); }));
#else
  return 0;
#endif
}

}  // namespace mechinterp::benchmarks

#endif  // HWY_ONCE
