#ifndef SERVICES_ENGINE_KERNELS_QUANTIZE_H_
#define SERVICES_ENGINE_KERNELS_QUANTIZE_H_

#include <array>
#include <cstdint>

#include "services/engine/kernels/number_format.h"

namespace mechinterp::engine::kernels {

// Reading and quantizing stored weights, of a compute type. Thread-safe; sources need no
// alignment.

// Converts `count` values to fp32. False when one is not finite.
bool ConvertToFloat(const void* source, NumberFormat type, int64_t count, float* values);

// Values that share a scale in NF4.
inline constexpr int kNf4Block = 64;

// The 16 values of NF4, quantiles of a normal distribution scaled to [-1, 1]
// (Dettmers et al. 2023, QLoRA, appendix E).
inline constexpr std::array<float, 16> kNf4Code = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// Quantizes `count` values in blocks of kNf4Block as bitsandbytes does, bit for
// bit: each value times the reciprocal of its block's absmax, then the nearest of
// the code's values (the lower one on a tie). Writes two indices a byte, the first
// in the high nibble ((count + 1) / 2 bytes), and one absmax a block. A last block
// may be short. False when a value is not finite.
bool QuantizeNf4(const void* source, NumberFormat type, int64_t count, uint8_t* codes, float* absmax);

// Quantizes a row in blocks of `block` (the last may be short): each by its own scale,
// absmax / 127, rounded to nearest. One scale a block.
void QuantizeInt8(const float* row, int64_t count, int64_t block, int8_t* values, float* scales);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_QUANTIZE_H_
