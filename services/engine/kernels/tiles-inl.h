// Products of bf16 tiles, Intel's AMX, for the inner loops of multiply-inl.h: a decoded
// group of a panel is multiplied 16 rows and 16 outputs at a time. By inline assembly,
// since no target of Highway's has them; whether the machine does is asked at run time
// (bfloat16_unit.h).
//
// Order of additions of one tile product (TDPBF16PS, Intel's instruction set
// extensions programming reference): the products of the even inner indices in order,
// those of the odd ones in order, and the two sums' sum is added to the tile's. That of
// an element depends on no other element.

#if defined(SERVICES_ENGINE_KERNELS_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERVICES_ENGINE_KERNELS_TILES_INL_H_
#undef SERVICES_ENGINE_KERNELS_TILES_INL_H_
#else
#define SERVICES_ENGINE_KERNELS_TILES_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "services/engine/kernels/multiply-inl.h"
#include "services/engine/kernels/pairs-inl.h"

#if KERNELS_HAVE_BFLOAT16_PAIRS

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {

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
HWY_INLINE void LoadTile(const uint32_t* rows, int64_t stride) {  // in words
  asm volatile("tileloadd (%0,%1,4), %%tmm%c2" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
// Not by TILEZERO: a product that adds to its result waits for those before it, and
// takes 34 cycles instead of 16 (measured on Emerald Rapids).
template <int kTile>
HWY_INLINE void ClearTile() {
  alignas(64) static constexpr uint32_t kZeros[kTilePairs] = {};
  LoadTile<kTile>(kZeros, 0);
}
template <int kTile>
HWY_INLINE void StoreTile(float* rows, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,4)" : : "r"(rows), "r"(stride), "i"(kTile) : "memory");
}
template <int kSums, int kX, int kW>
HWY_INLINE void MultiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kX), "i"(kW));
}

// totals [rows][kPanelOutputs] += sums [rows][kVectors vectors] * scales.
template <int kVectors>
HWY_INLINE void AddTileSums(const float* sums, int64_t rows, const float* scales, float* totals) {
  const F f;
  VF scale[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    scale[v] = scales != nullptr ? hn::Load(f, scales + v * kLanes) : hn::Set(f, 1.0f);
  }
  for (int64_t r = 0; r < rows; ++r, sums += kVectors * kLanes, totals += kPanelOutputs) {
    for (int v = 0; v < kVectors; ++v) {
      const VF total = hn::Load(f, totals + v * kLanes);
      hn::Store(hn::MulAdd(hn::Load(f, sums + v * kLanes), scale[v], total), f, totals + v * kLanes);
    }
  }
}

// Decodes a group, while another one is multiplied or at once, and asks for those ahead.
template <class Weights>
struct PrepareGroup {
  static constexpr bool kDecodes = !std::is_same_v<Weights, PairWeights>;
  static constexpr int kOctetsPerTile = kTilePairs / PairArithmetic::kSteps;

  int octets;
  Weights weights;
  Prefetcher prefetcher;
  float* pairs;

  // One tile of 16 outputs, of the one or two that the group is long.
  HWY_INLINE void operator()(int tile, int v) const {
    constexpr int kLines = Weights::kLinesPerOctet;
    const int end = HWY_MIN(octets, (tile + 1) * kOctetsPerTile);
    for (int e = tile * kOctetsPerTile; e < end; ++e) {
      if constexpr (kDecodes) DecodeOctet(weights, e, v, pairs);
      for (int i = 0; i < kLines; ++i) prefetcher.PrefetchLine((e * kPanelVectors + v) * kLines + i);
    }
    constexpr bool kScaled = kDecodes;  // the formats that are decoded have scales
    if (kScaled && tile == 0) prefetcher.PrefetchLine(octets * kPanelVectors * kLines + v);
  }

  HWY_INLINE void All() const {
    for (int tile = 0; tile * kOctetsPerTile < octets; ++tile) {
      for (int v = 0; v < kPanelVectors; ++v) (*this)(tile, v);
    }
  }
};

// A decoded group: its pairs in the order of PairWeights, so that 16 outputs' are a tile,
// one tile long or two; and its operands, `stride` words from row to row.
struct TileOperands {
  const uint32_t* w;
  bool two;
  const uint32_t* x;
  int64_t stride;
};

struct Nothing {
  HWY_INLINE void operator()(int, int) const {}
};

template <int kVector, class Prepare>
HWY_INLINE void SumVector(const TileOperands& operands, const Prepare& prepare, float* sums) {
  const uint32_t* w = operands.w + kVector * kLanes;
  ClearTile<kVector>();
  LoadTile<6>(w, kPanelOutputs);
  MultiplyTiles<kVector, 4, 6>();
  prepare(0, kVector);
  if (operands.two) {
    LoadTile<7>(w + kTilePairs * kPanelOutputs, kPanelOutputs);
    MultiplyTiles<kVector, 5, 7>();
    prepare(1, kVector);
  }
  StoreTile<kVector>(sums + kVector * kLanes, kPanelOutputs);
}

// Adds a group's products of up to 16 rows to the totals, and meanwhile does what `prepare`
// does.
template <class Prepare>
HWY_INLINE void AddTileOfRows(const TileOperands& operands, const Prepare& prepare, int64_t rows,
                              const float* scales, float* totals) {
  static_assert(kPanelVectors == 4);
  HWY_ALIGN float sums[kTileRows * kPanelOutputs];
  LoadTile<4>(operands.x, operands.stride);
  if (operands.two) LoadTile<5>(operands.x + kTilePairs, operands.stride);
  SumVector<0>(operands, prepare, sums);
  SumVector<1>(operands, prepare, sums);
  SumVector<2>(operands, prepare, sums);
  SumVector<3>(operands, prepare, sums);
  AddTileSums<kPanelVectors>(sums, rows, scales, totals);
}

// Those of 17 to 32 rows and two vectors of outputs: every tile is loaded once for two
// products.
HWY_INLINE void AddTwoTilesOfRows(TileOperands operands, int64_t rows, const float* scales, float* totals) {
  HWY_ALIGN float sums[2 * kTileRows * 2 * kLanes];
  ClearTile<0>();
  ClearTile<1>();
  ClearTile<2>();
  ClearTile<3>();
  for (int t = 0; t < (operands.two ? 2 : 1); ++t) {
    LoadTile<6>(operands.w, kPanelOutputs);
    LoadTile<4>(operands.x, operands.stride);
    MultiplyTiles<0, 4, 6>();
    LoadTile<7>(operands.w + kLanes, kPanelOutputs);
    MultiplyTiles<1, 4, 7>();
    LoadTile<5>(operands.x + kTileRows * operands.stride, operands.stride);
    MultiplyTiles<2, 5, 6>();
    MultiplyTiles<3, 5, 7>();
    operands.x += kTilePairs;
    operands.w += kTilePairs * kPanelOutputs;
  }
  StoreTile<0>(sums, 2 * kLanes);
  StoreTile<1>(sums + kLanes, 2 * kLanes);
  StoreTile<2>(sums + kTileRows * 2 * kLanes, 2 * kLanes);
  StoreTile<3>(sums + kTileRows * 2 * kLanes + kLanes, 2 * kLanes);
  AddTileSums<2>(sums, rows, scales, totals);
}

// Those of more than 16 rows.
HWY_INLINE void AddManyRows(TileOperands operands, int64_t rows, const float* scales, float* totals) {
  for (; rows > kTileRows; rows -= 2 * kTileRows) {
    const int64_t block = HWY_MIN(rows, int64_t{2} * kTileRows);
    for (int output = 0; output < kPanelOutputs; output += 2 * kLanes) {
      const TileOperands half{operands.w + output, operands.two, operands.x, operands.stride};
      AddTwoTilesOfRows(half, block, scales != nullptr ? scales + output : nullptr, totals + output);
    }
    operands.x += 2 * kTileRows * operands.stride;
    totals += 2 * kTileRows * kPanelOutputs;
  }
  if (rows > 0) AddTileOfRows(operands, Nothing(), rows, scales, totals);
}

// Panels [begin, end) of y = x w^T for n of at least 1; x in pairs, as PackOperands lays them out.
// Operands of rows past the last are read too, up to kMostRowsPastTheLast; nothing comes
// of them. Of few rows, a group is decoded while the one before it is multiplied; of many,
// at once, which leaves them more of the nearest cache.
template <class Weights>
HWY_ATTR void MultiplyPanelsInTilesOf(const PackedMatrix& w, const uint32_t* x, int64_t n, int64_t begin,
                                      int64_t end, const Outputs& y) {
  const TileSetting setting(static_cast<int>(HWY_MIN(n, int64_t{kTileRows})),
                            HWY_MIN(w.group / 2, kTilePairs));
  using Prepare = PrepareGroup<Weights>;
  constexpr int64_t kRowsPerBlock = 64;                     // their totals stay in the nearest cache
  HWY_ALIGN float pairs[2][kMaxGroup / 2 * kPanelOutputs];  // of a group and of the next
  HWY_ALIGN float totals[kRowsPerBlock * kPanelOutputs];
  const typename Weights::Table table(w.code.data());
  const Groups groups(w);
  const int64_t stride = w.group / 2;
  PrefetchBeginning(w, begin, end);
  const auto start = [&](int64_t panel) {
    return w.data.data() + panel * w.panel_bytes() + y.begin_group * groups.bytes;
  };
  const int64_t count = y.end_group - y.begin_group;
  const uint8_t* group = start(begin);
  bool prepared = false;
  int current = 0;  // where `group` is decoded to
  for (int64_t panel = begin; panel < end; ++panel) {
    for (int64_t first = 0; first < n; first += kRowsPerBlock) {
      const int64_t rows = HWY_MIN(kRowsPerBlock, n - first);
      for (int64_t i = 0; i < rows * kPanelOutputs; ++i) totals[i] = 0;
      for (int64_t g = 0; g < count; ++g) {
        const uint8_t* next = group + groups.bytes;
        if (g + 1 == count) {
          if (first + rows < n) {
            next = start(panel);  // the same panel's, for more rows
          } else {
            next = panel + 1 < end ? start(panel + 1) : group;  // or there is none
          }
        }
        const Prefetcher prefetcher(group, 2 * groups.bytes, 8 * groups.bytes);
        if (!prepared) Prepare{groups.octets, Weights(group, table), prefetcher, pairs[current]}.All();
        const void* decoded = Prepare::kDecodes ? static_cast<const void*>(pairs[current]) : group;
        const TileOperands operands{static_cast<const uint32_t*>(decoded), stride > kTilePairs,
                                    x + (g * n + first) * stride, stride};
        prepared = rows <= kTileRows;
        if (prepared) {
          current = 1 - current;
          const Prepare prepare{groups.octets, Weights(next, table), prefetcher, pairs[current]};
          AddTileOfRows(operands, prepare, rows, groups.Scales(group), totals);
        } else {
          AddManyRows(operands, rows, groups.Scales(group), totals);
        }
        group = next;
      }
      StoreOutputs(totals, rows, panel, first, y);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#endif  // AVX-512

#endif  // per-target include guard
