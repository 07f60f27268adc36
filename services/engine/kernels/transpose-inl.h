// A group of a panel as a tile of the transposed matrix, for multiply_transposed.cc: included by the
// formats' files inside Highway's foreach_target, hence without the usual guard. Such a tile is
// in the order of a decoded group (FloatWeights, PairWeights) whose inner indices are the panel's
// outputs and whose outputs are the group's inner indices.

#if defined(SERVICES_ENGINE_KERNELS_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_TRANSPOSE_INL_H_
#undef SERVICES_ENGINE_KERNELS_TRANSPOSE_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_TRANSPOSE_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "services/engine/kernels/arithmetic-inl.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply-inl.h"
#include "services/engine/kernels/pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

// `columns` [64][64] from a decoded group [64][64]. Compiled in multiply_transposed.cc for every format.
void TransposeValues(const float* group, float* columns);

// In fp32; column k is inner index k, and zeros past the group's last.
template <class Weights>
HWY_ATTR void DecodeTransposedValues(const PackedMatrix& w, const uint8_t* group, float* tile) {
  if constexpr (std::is_same_v<Weights, FloatWeights>) {
    TransposeValues(reinterpret_cast<const float*>(group), tile);
  } else {
    HWY_ALIGN float decoded[kMaxGroup * kPanelOutputs];
    const typename Weights::Table table(w.code.data());
    DecodeTile(Weights(group, table), w.group / 8, Prefetcher(), decoded);
    std::fill(decoded + w.group * kPanelOutputs, decoded + kMaxGroup * kPanelOutputs, 0.0f);
    TransposeValues(decoded, tile);
  }
}

#if KERNELS_HAVE_BFLOAT16_PAIRS

// Of four vectors of four 128-bit blocks: block c of from[i] becomes block i of to[2 c].
HWY_INLINE void TransposeBlocks(const __m512i (&from)[4], __m512i* to) {
  const __m512i low01 = _mm512_shuffle_i64x2(from[0], from[1], 0x44);
  const __m512i high01 = _mm512_shuffle_i64x2(from[0], from[1], 0xee);
  const __m512i low23 = _mm512_shuffle_i64x2(from[2], from[3], 0x44);
  const __m512i high23 = _mm512_shuffle_i64x2(from[2], from[3], 0xee);
  to[0] = _mm512_shuffle_i64x2(low01, low23, 0x88);
  to[2] = _mm512_shuffle_i64x2(low01, low23, 0xdd);
  to[4] = _mm512_shuffle_i64x2(high01, high23, 0x88);
  to[6] = _mm512_shuffle_i64x2(high01, high23, 0xdd);
}

// Of eight vectors of eight 64-bit pieces: piece c of x[i] becomes piece i of x[c].
HWY_INLINE void TransposePieces(__m512i (&x)[8]) {
  __m512i even[4], odd[4];  // pieces of x[2 i] and x[2 i + 1] in turn
  for (int i = 0; i < 4; ++i) {
    even[i] = _mm512_unpacklo_epi64(x[2 * i], x[2 * i + 1]);
    odd[i] = _mm512_unpackhi_epi64(x[2 * i], x[2 * i + 1]);
  }
  TransposeBlocks(even, x);
  TransposeBlocks(odd, x + 1);
}

// In pairs of neighbouring outputs. The packed words are transposed, not the values that are in
// them: a word holds several inner indices of an output; two neighbouring outputs' words exchange
// halves of what they hold (Pairs::kExchange, of their eight bytes), so that the format's own way
// to decode pairs of inner indices gives pairs of outputs. Columns are in the order of
// ColumnOfPair (weight_kernel.h).
template <class Pairs>
HWY_ATTR void DecodeTransposedPairs(const PackedMatrix& w, const uint8_t* group, float* tile) {
  constexpr int kBlocks = Pairs::kLinesPerOctet;  // of eight rows of words [64 outputs]
  constexpr bool kDecodes = !std::is_same_v<Pairs, PairWeights>;
  HWY_ALIGN uint32_t transposed[kDecodes ? 8 * kBlocks * kPanelOutputs : kLanes];
  constexpr int64_t kFirst = Pairs::kExchange, kSecond = kFirst + 0x0808080808080808;
  const __m512i exchange = _mm512_set4_epi64(kSecond, kFirst, kSecond, kFirst);
  const int rows = w.group / 8 * kBlocks;
  for (int block = 0; block < kBlocks; ++block) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const auto* words = reinterpret_cast<const uint32_t*>(group) + 8 * block * kPanelOutputs + v * kLanes;
      // Two outputs' words are a piece.
      __m512i x[8];
      for (int i = 0; i < 8; ++i) {
        x[i] = 8 * block + i < rows ? _mm512_load_si512(words + i * kPanelOutputs) : _mm512_setzero_si512();
      }
      for (__m512i& row : x) row = _mm512_shuffle_epi8(row, exchange);
      TransposePieces(x);
      for (int i = 0; i < 8; ++i) {
        const int pair = 8 * v + i;
        uint32_t* out = kDecodes
                            ? transposed + ((pair / 4) * kBlocks + block) * kPanelOutputs + pair % 4 * kLanes
                            : reinterpret_cast<uint32_t*>(tile) + pair * kPanelOutputs + block * kLanes;
        _mm512_store_si512(out, x[i]);
      }
    }
  }
  if constexpr (kDecodes) {
    const typename Pairs::Table table(w.code.data());
    const Pairs pairs(reinterpret_cast<const uint8_t*>(transposed), table);
    auto* out = reinterpret_cast<uint32_t*>(tile);
    for (int octet = 0; octet < 8; ++octet) {
      for (int v = 0; v < kPanelVectors; ++v, out += kPanelOutputs) {
        hn::Store(pairs.template Get<0>(octet, v), U(), out);
        hn::Store(pairs.template Get<1>(octet, v), U(), out + kLanes);
        hn::Store(pairs.template Get<2>(octet, v), U(), out + 2 * kLanes);
        hn::Store(pairs.template Get<3>(octet, v), U(), out + 3 * kLanes);
      }
    }
  }
}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
