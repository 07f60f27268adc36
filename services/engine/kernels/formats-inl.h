// The four formats of matrix.h as the inner loops of multiply-inl.h read them, with fp32
// arithmetic. Compiled once for each instruction set, hence without the usual guard.

#if defined(SERVICES_ENGINE_KERNELS_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_FORMATS_INL_H_
#undef SERVICES_ENGINE_KERNELS_FORMATS_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_FORMATS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/engine/kernels/matrix.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes, so that a panel is a whole number of vectors everywhere.
using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));
constexpr int kPanelVectors = kPanelOutputs / kLanes;

// How the rows of x are taken. kRowsAtATime: for so many, a group is decoded once;
// kDirectRows: up to so many, its weights are decoded in registers instead.
struct ByRows {
  static constexpr int64_t kRowsAtATime = 128;
  static constexpr int kDirectRows = 4;
};

// Which of NEON's names Highway gives it (with or without AES, say) does not matter
// here; SVE is not compiled (see CMakeLists.txt).
#undef KERNELS_HAVE_BYTE_TABLES
#if HWY_ARCH_ARM_A64 && HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
#define KERNELS_HAVE_BYTE_TABLES 1
#else
#define KERNELS_HAVE_BYTE_TABLES 0
#endif

// The values of 4-bit indices in the low bits of each lane.
class CodeTable {
 public:
  HWY_INLINE explicit CodeTable(const float* code) {
#if KERNELS_HAVE_BYTE_TABLES
    const auto* bytes = reinterpret_cast<const uint8_t*>(code);
    for (int i = 0; i < 4; ++i) table_.val[i] = vld1q_u8(bytes + 16 * i);
#elif HWY_MAX_BYTES >= 32
    for (int i = 0; i < 16 / kLanes; ++i) table_[i] = hn::LoadU(F(), code + i * kLanes);
#else
    code_ = code;
#endif
  }

  HWY_INLINE VF operator()(VU index) const {
    const F f;
    const U u;
#if KERNELS_HAVE_BYTE_TABLES
    // Each lane's four bytes from a table of 64.
    const VU four = hn::And(hn::ShiftLeft<2>(index), hn::Set(u, 0x3c));
    const VU byte = hn::Add(hn::Mul(four, hn::Set(u, 0x01010101u)), hn::Set(u, 0x03020100u));
    const hn::Repartition<uint8_t, U> bytes;
    return hn::BitCast(f, hn::VFromD<decltype(bytes)>(vqtbl4q_u8(table_, hn::BitCast(bytes, byte).raw)));
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    return VF{_mm512_permutexvar_ps(index.raw, table_[0].raw)};  // reads four bits of each lane
#elif HWY_ARCH_X86 && HWY_TARGET == HWY_AVX2
    // The low three bits choose within a half, the fourth (moved to the sign) the half.
    const VF low{_mm256_permutevar8x32_ps(table_[0].raw, index.raw)};
    const VF high{_mm256_permutevar8x32_ps(table_[1].raw, index.raw)};
    return VF{_mm256_blendv_ps(low.raw, high.raw, hn::BitCast(f, hn::ShiftLeft<28>(index)).raw)};
#else
    HWY_ALIGN uint32_t lanes[kLanes];
    HWY_ALIGN float values[kLanes];
    hn::Store(hn::And(index, hn::Set(u, 15)), u, lanes);
    for (int i = 0; i < kLanes; ++i) values[i] = code_[lanes[i]];
    return hn::Load(f, values);
#endif
  }

 private:
#if KERNELS_HAVE_BYTE_TABLES
  uint8x16x4_t table_;
#elif HWY_MAX_BYTES >= 32
  VF table_[16 / kLanes];
#else
  const float* code_;
#endif
};

struct NoTable {
  HWY_INLINE explicit NoTable(const float*) {}
};

// fp32: a step is one inner index.
struct FloatArithmetic {
  using Vector = VF;
  static constexpr int kSteps = 8;  // in 8 inner indices
  static HWY_INLINE VF MultiplyAdd(uint32_t x, VF w, VF sum) {
    return hn::MulAdd(hn::BitCast(F(), hn::Set(U(), x)), w, sum);
  }
};

// Weights give step `kStep` of the 8 inner indices from 8 * eighth on, for the
// panel's v-th vector of outputs. 16 outputs' eighth fills kLinesOfAnEighth cache lines.
struct FloatWeights : ByRows {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 8;
  const uint8_t* data;
  HWY_INLINE FloatWeights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* values = reinterpret_cast<const float*>(data);
    return hn::Load(F(), values + (8 * eighth + kStep) * kPanelOutputs + v * kLanes);
  }
};

struct BFloat16Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 4;
  const uint8_t* data;
  HWY_INLINE BFloat16Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* pairs = reinterpret_cast<const uint32_t*>(data);
    const VU pair = hn::Load(U(), pairs + (4 * eighth + kStep / 2) * kPanelOutputs + v * kLanes);
    return hn::BitCast(F(),
                       kStep % 2 == 0 ? hn::ShiftLeft<16>(pair) : hn::And(pair, hn::Set(U(), 0xffff0000u)));
  }
};

template <int kByte>
HWY_INLINE VF SignedByte(VU bytes) {
  const hn::Vec<I> top = hn::BitCast(I(), hn::ShiftLeft<24 - 8 * kByte>(bytes));
  return hn::ConvertTo(F(), hn::ShiftRight<24>(top));
}

struct Int8Weights {
  using Arithmetic = FloatArithmetic;
  using Table = NoTable;
  static constexpr int kLinesOfAnEighth = 2;
  const uint8_t* data;
  HWY_INLINE Int8Weights(const uint8_t* group, const NoTable&) : data(group) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    const auto* fours = reinterpret_cast<const uint32_t*>(data);
    return SignedByte<kStep % 4>(
        hn::Load(U(), fours + (2 * eighth + kStep / 4) * kPanelOutputs + v * kLanes));
  }
};

// Of an output's eight indices, the even ones lie in the low half of its 32 bits,
// the odd ones in the high half (so that bf16 pairs are four shifts away).
struct Nf4Weights {
  using Arithmetic = FloatArithmetic;
  using Table = CodeTable;
  static constexpr int kLinesOfAnEighth = 1;
  const uint8_t* data;
  const CodeTable& table;
  HWY_INLINE Nf4Weights(const uint8_t* group, const CodeTable& code) : data(group), table(code) {}
  template <int kStep>
  HWY_INLINE VF Get(int eighth, int v) const {
    constexpr int kShift = 4 * (kStep / 2) + 16 * (kStep % 2);
    const uint8_t* eights = data + (eighth * kPanelOutputs + v * kLanes) * 4;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    // The unit that shifts is busy with multiplying, the one that loads is not.
    const VU indices = hn::LoadU(U(), reinterpret_cast<const uint32_t*>(eights + kShift / 8));
    return table(hn::ShiftRight<kShift % 8>(indices));
#else
    return table(hn::ShiftRight<kShift>(hn::Load(U(), reinterpret_cast<const uint32_t*>(eights))));
#endif
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
