// Products y[rows, out] = x[rows, in] w[out, in]^T and panels of w, for any format
// of weights. A format (nf4.metal, int8.metal) is a struct with
//
//   typedef ... Chunk;                                 16 neighbouring weights of one output, as stored
//   Chunk load(uint output, uint k, uint in)           the chunk at k, a multiple of 16
//   float scale(uint output, uint k, uint in)          what the chunk's weights are multiplied by
//   void decode(Chunk chunk, bool second, thread float* w)   8 of its weights, unscaled
//   float value(uint output, uint k, uint in)          one weight, scaled; for rows of any length
//
// README.md beside this file has the arithmetic behind the numbers below.
#include <metal_stdlib>
using namespace metal;

// Arrays stay in registers only if the loops over them are unrolled.
#define UNROLL _Pragma("clang loop unroll(full)")

// A threadgroup is 2 simdgroups of 32 lanes, a simdgroup makes 4 outputs, and in a
// step its lanes take 16 neighbouring weights each: 512 of every output.
constexpr constant static int kSimdgroups = 2;
constexpr constant static int kOutputs = 4;
constexpr constant static uint kChunk = 16;
constexpr constant static uint kStep = 32 * 16;

template <int kRows>
struct Sums {
  float value[kRows][kOutputs];
};

// Eight activations as fp32; p is a multiple of 4 elements from an aligned row.
template <typename T>
inline void load_activations(device const T* p, thread float* x) {
  device const vec<T, 4>* p4 = (device const vec<T, 4>*)p;
  const float4 low = float4(p4[0]);
  const float4 high = float4(p4[1]);
  UNROLL
  for (int i = 0; i < 4; ++i) {
    x[i] = low[i];
    x[4 + i] = high[i];
  }
}

// One step of kRows rows by kOutputs outputs: each weight is decoded once for all
// rows. Lanes past the end of a row (kTail) multiply zeros: they must come along,
// since decode() may ask other lanes.
template <typename Format, typename T, int kRows, bool kTail>
inline void multiply_step(Format w, device const T* x, thread const uint* row_offsets,
                          thread const uint* outputs, uint k, uint in, thread Sums<kRows>& sums) {
  const bool inside = !kTail || k < in;
  const uint at = inside ? k : 0;
  typename Format::Chunk chunks[kOutputs];
  float scales[kOutputs];
  UNROLL
  for (int o = 0; o < kOutputs; ++o) chunks[o] = w.load(outputs[o], at, in);
  UNROLL
  for (int o = 0; o < kOutputs; ++o) scales[o] = inside ? w.scale(outputs[o], at, in) : 0.0f;
  for (int part = 0; part < 2; ++part) {
    float weights[kOutputs][8];
    UNROLL
    for (int o = 0; o < kOutputs; ++o) w.decode(chunks[o], part == 1, weights[o]);
    UNROLL
    for (int r = 0; r < kRows; ++r) {
      float activations[8];
      load_activations(x + row_offsets[r] + at + 8 * part, activations);
      UNROLL
      for (int o = 0; o < kOutputs; ++o) {
        float sum = 0.0f;
        UNROLL
        for (int i = 0; i < 8; ++i) sum = fma(inside ? activations[i] : 0.0f, weights[o][i], sum);
        sums.value[r][o] = fma(sum, scales[o], sums.value[r][o]);
      }
    }
  }
}

// kRows rows by kOutputs outputs of one simdgroup; in is a multiple of 16. The order
// of additions does not depend on kRows, so a row's bits are the same in any batch.
//
// NF4, one row: 0.5625 bytes a weight (codes 0.5, scale 4/64). For the 64 weights of
// a step a lane loads 4 x 8 bytes of codes, 4 scales, 32 bytes of fp16 activations,
// and issues about 4 instructions a weight: 7 a byte. A core then decodes some 30
// weights a cycle where memory delivers 12 to 17 (M1, M2, M1 Max): memory decides.
template <typename Format, typename T, typename Out, int kRows>
inline void linear_rows(Format w, device const T* x, device Out* y, constant MetalLinearArguments& arguments,
                        uint3 group, ushort simdgroup, ushort lane) {
  const uint in = arguments.in;
  const uint first_output = (group.x * kSimdgroups + simdgroup) * kOutputs;
  const uint first_row = group.y * kRows;
  uint outputs[kOutputs];
  uint row_offsets[kRows];
  Sums<kRows> sums;
  // Rows and outputs past the end repeat the last one and are not stored.
  UNROLL
  for (int o = 0; o < kOutputs; ++o) outputs[o] = min(first_output + o, arguments.out - 1);
  UNROLL
  for (int r = 0; r < kRows; ++r) {
    row_offsets[r] = min(first_row + r, arguments.rows - 1) * in;
    UNROLL
    for (int o = 0; o < kOutputs; ++o) sums.value[r][o] = 0.0f;
  }

  const uint whole = in / kStep * kStep;
  for (uint k = 0; k < whole; k += kStep) {
    multiply_step<Format, T, kRows, false>(w, x, row_offsets, outputs, k + lane * kChunk, in, sums);
  }
  if (whole < in) {
    multiply_step<Format, T, kRows, true>(w, x, row_offsets, outputs, whole + lane * kChunk, in, sums);
  }

  // Lane 4 r + o keeps the sum of row r, output o, so that one store writes all.
  float mine = 0.0f;
  UNROLL
  for (int r = 0; r < kRows; ++r) {
    UNROLL
    for (int o = 0; o < kOutputs; ++o) {
      const float total = simd_sum(sums.value[r][o]);
      if (lane == r * kOutputs + o) mine = total;
    }
  }
  const uint row = first_row + lane / kOutputs;
  const uint output = first_output + lane % kOutputs;
  if (lane < kRows * kOutputs && row < arguments.rows && output < arguments.out) {
    y[row * arguments.out + output] = Out(mine);
  }
}

// One row by one output of a simdgroup, weight by weight, for rows of any length
// and alignment.
template <typename Format, typename T, typename Out>
inline void linear_any(Format w, device const T* x, device Out* y, constant MetalLinearArguments& arguments,
                       uint3 group, ushort simdgroup, ushort lane) {
  const uint in = arguments.in;
  const uint output = group.x * kSimdgroups + simdgroup;
  if (output >= arguments.out) return;  // the whole simdgroup
  float sum = 0.0f;
  for (uint k = lane; k < in; k += 32) sum = fma(float(x[group.y * in + k]), w.value(output, k, in), sum);
  const float total = simd_sum(sum);
  if (lane == 0) y[group.y * arguments.out + output] = Out(total);
}

// One chunk of a panel of w, rounded to T; in is a multiple of 16. Threads past the
// end of a row decode along for the other lanes' sake.
template <typename Format, typename T>
inline void dequantize_chunks(Format w, device T* panel, constant MetalLinearArguments& arguments,
                              uint3 group, ushort simdgroup, ushort lane) {
  const uint in = arguments.in;
  const uint k = ((group.x * kSimdgroups + simdgroup) * 32 + lane) * kChunk;
  const uint at = min(k, in - kChunk);
  const uint output = arguments.first_output + group.y;
  const typename Format::Chunk chunk = w.load(output, at, in);
  const float scale = w.scale(output, at, in);
  device vec<T, 4>* p4 = (device vec<T, 4>*)(panel + group.y * in + at);
  UNROLL
  for (int part = 0; part < 2; ++part) {
    float weights[8];
    w.decode(chunk, part == 1, weights);
    if (k < in) {
      UNROLL
      for (int i = 0; i < 2; ++i) {
        p4[2 * part + i] = vec<T, 4>(T(weights[4 * i] * scale), T(weights[4 * i + 1] * scale),
                                     T(weights[4 * i + 2] * scale), T(weights[4 * i + 3] * scale));
      }
    }
  }
}

// The same, one weight a thread, for rows of any length and alignment.
template <typename Format, typename T>
inline void dequantize_any(Format w, device T* panel, constant MetalLinearArguments& arguments,
                           uint3 group, ushort simdgroup, ushort lane) {
  const uint k = (group.x * kSimdgroups + simdgroup) * 32 + lane;
  if (k < arguments.in) {
    panel[group.y * arguments.in + k] = T(w.value(arguments.first_output + group.y, k, arguments.in));
  }
}

// What every kernel is given to know its place: whole threadgroups only, [64, 1].
#define KERNEL_POSITION                         \
  uint3 group [[threadgroup_position_in_grid]], \
      ushort simdgroup [[simdgroup_index_in_threadgroup]], ushort lane [[thread_index_in_simdgroup]]
