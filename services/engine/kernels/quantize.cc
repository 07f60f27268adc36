#include "services/engine/kernels/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "services/engine/kernels/quantize.cc"
// The order matters.
// clang-format off
#include "hwy/foreach_target.h"  // compiles this file once for each instruction set
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mechinterp::engine::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using I = hn::RebindToSigned<F>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(F()));
constexpr uint32_t kInfinity = 0x7f800000;

HWY_INLINE hn::Vec<F> LoadAsFloat(const void* source, NumberFormat type, int64_t index) {
  const F f;
  if (type == NumberFormat::kFloat32) {
    HWY_ALIGN float aligned[kLanes];  // the source need not be
    std::memcpy(aligned, static_cast<const uint8_t*>(source) + 4 * index, sizeof aligned);
    return hn::Load(f, aligned);
  }
  const hn::Rebind<uint16_t, F> halves;
  HWY_ALIGN uint16_t aligned[kLanes];
  std::memcpy(aligned, static_cast<const uint8_t*>(source) + 2 * index, sizeof aligned);
  const auto bits = hn::Load(halves, aligned);
  if (type == NumberFormat::kBFloat16) return hn::BitCast(f, hn::ShiftLeft<16>(hn::PromoteTo(U(), bits)));
  return hn::PromoteTo(f, hn::BitCast(hn::Rebind<hwy::float16_t, F>(), bits));
}

// Magnitudes of fp32 values order like their bits without the sign; everything from
// infinity on is not finite.
HWY_INLINE hn::Vec<U> MagnitudeBits(hn::Vec<F> values) {
  return hn::And(hn::BitCast(U(), values), hn::Set(U(), 0x7fffffffu));
}

// Up to kNf4Block values, the rest zeros.
HWY_INLINE void LoadBlock(const void* source, NumberFormat type, int64_t first, int64_t count, float* block) {
  const int64_t width = type == NumberFormat::kFloat32 ? 4 : 2;
  HWY_ALIGN uint8_t padded[kNf4Block * 4] = {};
  if (count < kNf4Block) {
    std::memcpy(padded, static_cast<const uint8_t*>(source) + width * first, width * count);
    source = padded;
    first = 0;
  }
  for (int i = 0; i < kNf4Block; i += kLanes) hn::Store(LoadAsFloat(source, type, first + i), F(), block + i);
}

HWY_ATTR bool Convert(const void* source, NumberFormat type, int64_t count, float* values) {
  const F f;
  hn::Vec<U> largest = hn::Zero(U());
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const hn::Vec<F> part = LoadAsFloat(source, type, i);
    largest = hn::Max(largest, MagnitudeBits(part));
    hn::StoreU(part, f, values + i);
  }
  HWY_ALIGN float block[kNf4Block];
  if (i < count) {
    LoadBlock(source, type, i, count - i, block);
    largest = hn::Max(largest, MagnitudeBits(hn::Load(f, block)));
    std::memcpy(values + i, block, (count - i) * sizeof(float));
  }
  return hn::GetLane(hn::MaxOfLanes(U(), largest)) < kInfinity;
}

HWY_ATTR bool QuantizeBlocks(const void* source, NumberFormat type, int64_t count, uint8_t* codes,
                             float* absmax) {
  const F f;
  const I integers;
  hn::Vec<F> bounds[15];
  for (int i = 0; i < 15; ++i) bounds[i] = hn::Set(f, (kNf4Code[i] + kNf4Code[i + 1]) / 2);
  HWY_ALIGN float block[kNf4Block];
  HWY_ALIGN int32_t indices[kNf4Block];
  uint32_t not_finite = 0;
  for (int64_t first = 0; first < count; first += kNf4Block) {
    const int64_t size = HWY_MIN(int64_t{kNf4Block}, count - first);
    LoadBlock(source, type, first, size, block);
    hn::Vec<U> magnitude = hn::Zero(U());
    for (int i = 0; i < kNf4Block; i += kLanes)
      magnitude = hn::Max(magnitude, MagnitudeBits(hn::Load(f, block + i)));
    const hn::Vec<U> largest_bits = hn::MaxOfLanes(U(), magnitude);
    not_finite |= hn::GetLane(largest_bits) >= kInfinity;
    const float largest = hn::GetLane(hn::BitCast(f, largest_bits));
    *absmax++ = largest;
    const hn::Vec<F> inverse = hn::Set(f, 1.0f / HWY_MAX(largest, 1e-38f));
    for (int i = 0; i < kNf4Block; i += kLanes) {
      const hn::Vec<F> value = hn::Mul(hn::Load(f, block + i), inverse);
      hn::Vec<I> index = hn::Zero(integers);
      for (const hn::Vec<F>& bound : bounds) {  // a true mask is -1
        index = hn::Sub(index, hn::BitCast(integers, hn::VecFromMask(f, hn::Gt(value, bound))));
      }
      hn::Store(index, integers, indices + i);
    }
    for (int64_t i = 0; i + 1 < size; i += 2) {
      *codes++ = static_cast<uint8_t>(indices[i] << 4 | indices[i + 1]);
    }
    if (size % 2 == 1) *codes++ = static_cast<uint8_t>(indices[size - 1] << 4);
  }
  return not_finite == 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace mechinterp::engine::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mechinterp::engine::kernels {

HWY_EXPORT(Convert);
HWY_EXPORT(QuantizeBlocks);

bool ConvertToFloat(const void* source, NumberFormat type, int64_t count, float* values) {
  return HWY_DYNAMIC_DISPATCH(Convert)(source, type, count, values);
}

bool QuantizeNf4(const void* source, NumberFormat type, int64_t count, uint8_t* codes, float* absmax) {
  return HWY_DYNAMIC_DISPATCH(QuantizeBlocks)(source, type, count, codes, absmax);
}

void QuantizeInt8(const float* row, int64_t count, int64_t block, int8_t* values, float* scales) {
  for (int64_t first = 0; first < count; first += block) {
    const int64_t end = std::min(count, first + block);
    float largest = 0;
    for (int64_t i = first; i < end; ++i) largest = std::max(largest, std::abs(row[i]));
    const float inverse = largest > 0 ? 127 / largest : 0;
    *scales++ = largest / 127;
    for (int64_t i = first; i < end; ++i) values[i] = static_cast<int8_t>(std::lrintf(row[i] * inverse));
  }
}

}  // namespace mechinterp::engine::kernels
#endif
