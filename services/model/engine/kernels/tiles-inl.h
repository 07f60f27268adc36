// Products of bf16 tiles, Intel's AMX, for the inner loops of multiply-inl.h: a decoded
// group of a panel is multiplied 16 rows and 16 outputs at a time. By inline assembly,
// since no target of Highway's has them; whether the machine does is asked at run time
// (bfloat16_unit.h).
//
// Order of additions of one tile product (TDPBF16PS, Intel's instruction set
// extensions programming reference): the products of the even inner indices in order,
// those of the odd ones in order, and the two sums' sum is added to the tile's. That of
// an element depends on no other element.

#if defined(SERVICES_MODEL_ENGINE_KERNELS_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_MODEL_ENGINE_KERNELS_TILES_INL_H_
#undef SERVICES_MODEL_ENGINE_KERNELS_TILES_INL_H_
#else
#define SERVICES_MODEL_ENGINE_KERNELS_TILES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/model/engine/kernels/multiply-inl.h"
#include "services/model/engine/kernels/pairs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3

constexpr int kTileRows = 16;
constexpr int kTilePairs = 16;  // of inner indices

// The thread's eight tiles while it lives: 0 to 3 hold sums, 4 and 5 operands
// (up to 16 rows of `pairs` pairs), 6 and 7 weights.
class TileSetting {
 public:
  HWY_INLINE TileSetting(int rows, int pairs) {
    Shapes shapes;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : pairs);
      shapes.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? 4 * pairs : 64);
    }
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  HWY_INLINE ~TileSetting() { asm volatile("tilerelease"); }
  TileSetting(const TileSetting&) = delete;
  TileSetting& operator=(const TileSetting&) = delete;

 private:
  struct alignas(64) Shapes {  // as LDTILECFG reads it
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
};

template <int kTile>
HWY_INLINE void ClearTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
HWY_INLINE void LoadTile(const uint32_t* rows, int64_t stride) {  // in words
  asm volatile("tileloadd (%0,%1,4), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kTile>
HWY_INLINE void StoreTile(float* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,4)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kSums, int kX, int kW>
HWY_INLINE void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kX), "i"(kW));
}

// As tiles do it, denormals count as zero, while this lives.
class DenormalsAreZero {
 public:
  HWY_INLINE DenormalsAreZero() : before_(_mm_getcsr()) {
    _mm_setcsr(before_ | kFlushResults | kFlushOperands);
  }
  HWY_INLINE ~DenormalsAreZero() { _mm_setcsr(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
  static constexpr unsigned kFlushResults = 1u << 15, kFlushOperands = 1u << 6;
  const unsigned before_;
};

// totals [rows][kPanelOutputs] += sums [rows][two vectors] * scales.
HWY_INLINE void AddTileSums(const float* sums, int64_t rows, const float* scales, float* totals) {
  const F f;
  const VF one = hn::Set(f, 1.0f);
  const VF scale0 = scales != nullptr ? hn::Load(f, scales) : one;
  const VF scale1 = scales != nullptr ? hn::Load(f, scales + kLanes) : one;
  for (int64_t r = 0; r < rows; ++r, sums += 2 * kLanes, totals += kPanelOutputs) {
    hn::Store(hn::MulAdd(hn::Load(f, sums), scale0, hn::Load(f, totals)), f, totals);
    hn::Store(hn::MulAdd(hn::Load(f, sums + kLanes), scale1, hn::Load(f, totals + kLanes)), f,
              totals + kLanes);
  }
}

// Adds the products of one group, of up to 16 or up to 32 rows and two vectors of
// outputs, to the totals. w: the group's pairs in the order of PairWeights, so that 16
// outputs' are a tile; the group is one tile long, or two. Operands of rows past the last
// are read too, up to a whole tile of them; nothing comes of them.
HWY_INLINE void AddTileOfRows(const uint32_t* w, bool two, const uint32_t* x, int64_t x_stride, int64_t rows,
                              const float* scales, float* totals) {
  constexpr int kSecond = kTilePairs * kPanelOutputs;
  HWY_ALIGN float sums[kTileRows * 2 * kLanes];
  LoadTile<4>(x, x_stride);
  if (two) LoadTile<5>(x + kTilePairs, x_stride);
  ClearTile<0>();
  LoadTile<6>(w, kPanelOutputs);
  MultiplyTiles<0, 4, 6>();
  if (two) {
    LoadTile<7>(w + kSecond, kPanelOutputs);
    MultiplyTiles<0, 5, 7>();
  }
  StoreTile<0>(sums, 2 * kLanes);
  ClearTile<1>();
  LoadTile<6>(w + kLanes, kPanelOutputs);
  MultiplyTiles<1, 4, 6>();
  if (two) {
    LoadTile<7>(w + kSecond + kLanes, kPanelOutputs);
    MultiplyTiles<1, 5, 7>();
  }
  StoreTile<1>(sums + kLanes, 2 * kLanes);
  AddTileSums(sums, rows, scales, totals);
}

HWY_INLINE void AddTwoTilesOfRows(const uint32_t* w, bool two, const uint32_t* x, int64_t x_stride,
                                  int64_t rows, const float* scales, float* totals) {
  HWY_ALIGN float sums[2 * kTileRows * 2 * kLanes];
  ClearTile<0>();
  ClearTile<1>();
  ClearTile<2>();
  ClearTile<3>();
  for (int t = 0; t < (two ? 2 : 1); ++t, x += kTilePairs, w += kTilePairs * kPanelOutputs) {
    LoadTile<6>(w, kPanelOutputs);
    LoadTile<4>(x, x_stride);
    MultiplyTiles<0, 4, 6>();
    LoadTile<7>(w + kLanes, kPanelOutputs);
    MultiplyTiles<1, 4, 7>();
    LoadTile<5>(x + kTileRows * x_stride, x_stride);
    MultiplyTiles<2, 5, 6>();
    MultiplyTiles<3, 5, 7>();
  }
  StoreTile<0>(sums, 2 * kLanes);
  StoreTile<1>(sums + kLanes, 2 * kLanes);
  StoreTile<2>(sums + kTileRows * 2 * kLanes, 2 * kLanes);
  StoreTile<3>(sums + kTileRows * 2 * kLanes + kLanes, 2 * kLanes);
  AddTileSums(sums, rows, scales, totals);
}

// A decoded group of a panel.
struct TileWeights {
  using Arithmetic = PairArithmetic;
  using Table = NoTable;
  static constexpr int64_t kRowsAtATime = 64;  // their totals stay in the nearest cache
  static constexpr int kDirectRows = 0;
  const uint32_t* pairs;
  HWY_INLINE TileWeights(const uint8_t* group, const NoTable&)
      : pairs(reinterpret_cast<const uint32_t*>(group)) {}
};

HWY_INLINE void AddGroupOfRows(const TileWeights& weights, int eighths, const uint32_t* x, int64_t n,
                               const float* scales, float* totals) {
  const int64_t stride = int64_t{eighths} * PairArithmetic::kSteps;
  const bool two = stride > kTilePairs;
  for (int64_t r = 0; r < n; r += 2 * kTileRows, x += 2 * kTileRows * stride) {
    for (int output = 0; output < kPanelOutputs; output += 2 * kLanes) {
      const uint32_t* w = weights.pairs + output;
      const float* w_scales = scales != nullptr ? scales + output : nullptr;
      float* row_totals = totals + r * kPanelOutputs + output;
      if (n - r > kTileRows) {
        AddTwoTilesOfRows(w, two, x, stride, HWY_MIN(int64_t{2} * kTileRows, n - r), w_scales, row_totals);
      } else {
        AddTileOfRows(w, two, x, stride, n - r, w_scales, row_totals);
      }
    }
  }
}

// For one row, which tiles are not worth while for: fp32 arithmetic that gives the same
// bits.
template <class Weights>
struct OneRow : Weights {
  static constexpr int64_t kRowsAtATime = 1;
  static constexpr int kDirectRows = 1;
  HWY_INLINE OneRow(const uint8_t* group, const typename Weights::Table& table) : Weights(group, table) {}
};

template <class Weights>
HWY_INLINE void AddGroupOfRows(const OneRow<Weights>& weights, int eighths, const uint32_t* x, int64_t,
                               const float* scales, float* totals) {
  constexpr int kEighthsInATile = 4;
  const int in_a_tile = HWY_MIN(eighths, kEighthsInATile);
  VF sums[1][kPanelVectors];
  Clear(sums);
  for (int first = 0; first < eighths; first += in_a_tile) {
    VF even[1][kPanelVectors], odd[1][kPanelVectors];
    Clear(even);
    Clear(odd);
    for (int e = first; e < first + in_a_tile; ++e) {
      Step<OneRow<Weights>, 0>(weights, e, 0, x, 0, even);
      Step<OneRow<Weights>, 1>(weights, e, 0, x, 0, odd);
      Step<OneRow<Weights>, 2>(weights, e, 0, x, 0, even);
      Step<OneRow<Weights>, 3>(weights, e, 0, x, 0, odd);
      Step<OneRow<Weights>, 4>(weights, e, 0, x, 0, even);
      Step<OneRow<Weights>, 5>(weights, e, 0, x, 0, odd);
      Step<OneRow<Weights>, 6>(weights, e, 0, x, 0, even);
      Step<OneRow<Weights>, 7>(weights, e, 0, x, 0, odd);
    }
    for (int v = 0; v < kPanelVectors; ++v) sums[0][v] = hn::Add(sums[0][v], hn::Add(even[0][v], odd[0][v]));
  }
  AddToTotals(sums, 0, scales, totals);
}

#endif  // AVX-512

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
