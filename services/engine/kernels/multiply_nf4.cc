// 4-bit NormalFloat weights with a scale for each block.
#include "services/engine/kernels/weight_kernel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/multiply_nf4.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
#include "services/engine/kernels/products-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

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

// Of an output's eight indices, the even ones lie in the low half of its 32 bits,
// the odd ones in the high half (so that bf16 pairs are four shifts away).
struct Nf4Weights {
  using Arithmetic = FloatArithmetic;
  using Table = CodeTable;
  static constexpr int kLinesPerOctet = 1;
  const uint8_t* data;
  const CodeTable& table;
  HWY_INLINE Nf4Weights(const uint8_t* group, const CodeTable& code) : data(group), table(code) {}
  template <int kStep>
  HWY_INLINE VF Get(int octet, int v) const {
    constexpr int kShift = 4 * (kStep / 2) + 16 * (kStep % 2);
    const uint8_t* eights = data + (octet * kPanelOutputs + v * kLanes) * 4;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
    // The unit that shifts is busy with multiplying, the one that loads is not.
    const VU indices = hn::LoadU(U(), reinterpret_cast<const uint32_t*>(eights + kShift / 8));
    return table(hn::ShiftRight<kShift % 8>(indices));
#else
    return table(hn::ShiftRight<kShift>(hn::Load(U(), reinterpret_cast<const uint32_t*>(eights))));
#endif
  }
};

#if KERNELS_HAVE_BFLOAT16_PAIRS

// 16-bit lookups: the even index in the low half of a lane, the odd one in the high
// half. A lookup reads five bits, so the table stands in the register twice.
struct PairTable {
  __m512i values;
  HWY_INLINE explicit PairTable(const float* code) {
    // The code is rounded to bf16 already: the upper halves of its fp32 values.
    const VU bits = hn::ShiftRight<16>(hn::BitCast(U(), hn::LoadU(F(), code)));
    values = _mm512_broadcast_i64x4(_mm512_cvtepi32_epi16(bits.raw));
  }
};

struct Nf4Pairs {
  using Arithmetic = PairArithmetic;
  using Table = PairTable;
  static constexpr int kLinesPerOctet = 1;
  static constexpr int64_t kExchange = 0x0706030205040100;  // even halves, odd halves
  const uint8_t* data;
  const PairTable& table;
  HWY_INLINE Nf4Pairs(const uint8_t* group, const PairTable& code) : data(group), table(code) {}
  template <int kStep>
  HWY_INLINE VU Get(int octet, int v) const {
    const auto* eights = reinterpret_cast<const uint32_t*>(data);
    const VU indices = hn::Load(U(), eights + octet * kPanelOutputs + v * kLanes);
    return VU{_mm512_permutexvar_epi16(_mm512_srli_epi16(indices.raw, 4 * kStep), table.values)};
  }
};

#else

using Nf4Pairs = NoPairs;

#endif

Products ChooseNf4(BFloat16Unit unit) { return ProductsFor<Nf4Weights, Nf4Pairs>(unit); }

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cstring>
#include <vector>

#include "services/engine/kernels/quantize.h"

namespace mechinterp::engine::kernels {
namespace {

// From eight indices as NF4 is stored, two a byte and the first in the high
// nibble, to the order of the products: even ones in the low half, odd in the high.
uint32_t SplitEvenOdd(uint32_t stored) {
  auto compress = [](uint32_t nibbles) {  // 0x0a0b0c0d -> 0xabcd
    nibbles = (nibbles | nibbles >> 4) & 0x00ff00ffu;
    return (nibbles | nibbles >> 8) & 0xffffu;
  };
  return compress(stored >> 4 & 0x0f0f0f0fu) | compress(stored & 0x0f0f0f0fu) << 16;
}
// Quantizes as it packs: a panel's rows are whole blocks of the flattened matrix.
void Pack(PackedMatrix& matrix, int64_t panel, const float* rows) {
  const int64_t count = RowsInPanel(matrix, panel) * matrix.in;
  std::vector<uint8_t> codes((count + 1) / 2);
  std::vector<float> absmax((count + kNf4Block - 1) / kNf4Block);
  QuantizeNf4(rows, NumberFormat::kFloat32, count, codes.data(), absmax.data());
  PackNf4Panel(matrix, panel, codes.data(), absmax.data());
}

HWY_EXPORT(ChooseNf4);

Products Choose(BFloat16Unit unit) { return HWY_DYNAMIC_DISPATCH(ChooseNf4)(unit); }

}  // namespace

void PackNf4Panel(PackedMatrix& matrix, int64_t panel, const uint8_t* codes, const float* absmax) {
  const int64_t octets = matrix.group / 8, row_words = matrix.in / 8;
  for (int64_t r = 0; r < RowsInPanel(matrix, panel); ++r) {
    for (int64_t g = 0; g < matrix.groups(); ++g) {
      uint8_t* group = GroupData(matrix, panel, g);
      auto* words = reinterpret_cast<uint32_t*>(group);
      for (int64_t o = 0; o < octets; ++o) {
        uint32_t stored;
        std::memcpy(&stored, codes + (r * row_words + g * octets + o) * 4, 4);
        words[o * kPanelOutputs + r] = SplitEvenOdd(stored);
      }
      Scales(matrix, group)[r] = absmax[(r * matrix.in + g * matrix.group) / kMaxGroup];
    }
  }
}

const WeightKernel kNf4Kernel = {Pack, Choose};

}  // namespace mechinterp::engine::kernels
#endif
