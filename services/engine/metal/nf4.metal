// NF4 as bitsandbytes stores it (Dettmers et al. 2023): codes[out * in / 2], two a
// byte, the first in the high nibble; absmax[out * in / 64], one for each 64 weights
// of the flattened matrix, so that a scale may span two outputs.

constexpr constant static float kNf4Codes[16] = NF4_CODES;

// Where a lane looks up a code. By default lane i of a simdgroup holds code i & 15 in
// a register and others ask it for it: a shuffle moves 4 times the bytes a cycle that
// threadgroup memory does. With NF4_TABLE_IN_THREADGROUP the codes lie there.
#if NF4_TABLE_IN_THREADGROUP
typedef threadgroup const float* Nf4Table;
inline float nf4_code(Nf4Table table, ushort index) { return table[index]; }
#define NF4_TABLE(name)                                                        \
  THREADGROUP_ARRAY(float, name, 16);                                          \
  if (simdgroup == 0 && lane < 16) name[lane] = kNf4Codes[lane];               \
  threadgroup_barrier(mem_flags::mem_threadgroup)
#else
typedef float Nf4Table;
inline float nf4_code(Nf4Table table, ushort index) { return simd_shuffle(table, index); }
#define NF4_TABLE(name) const Nf4Table name = kNf4Codes[lane & 15]
#endif

// The C++ that compiles this file for the tests shares an array in another way.
#ifndef THREADGROUP_ARRAY
#define THREADGROUP_ARRAY(type, name, size) threadgroup type name[size]
#endif

struct Nf4 {
  typedef uint2 Chunk;
  device const uchar* codes;
  device const float* absmax;
  Nf4Table table;

  Chunk load(uint output, uint k, uint in) const {
    return ((device const uint2*)codes)[(output * in + k) / 16];
  }
  float scale(uint output, uint k, uint in) const { return absmax[(output * in + k) / 64]; }

  // In little-endian halves of 16 bits codes 0 to 3 start at bits 4, 0, 12, 8.
  void decode(Chunk chunk, bool second, thread float* w) const {
    const ushort2 halves = as_type<ushort2>(second ? chunk.y : chunk.x);
    UNROLL
    for (int i = 0; i < 2; ++i) {
      const ushort bits = halves[i];
      w[4 * i] = nf4_code(table, (bits >> 4) & 15);
      w[4 * i + 1] = nf4_code(table, bits & 15);
      w[4 * i + 2] = nf4_code(table, bits >> 12);
      w[4 * i + 3] = nf4_code(table, (bits >> 8) & 15);
    }
  }

  // Asks no other lane, so lanes may part company here.
  float value(uint output, uint k, uint in) const {
    const uint index = output * in + k;
    const uint byte = codes[index / 2];
    return kNf4Codes[index % 2 == 0 ? byte >> 4 : byte & 15] * absmax[index / 64];
  }
};

#define NF4_LINEAR_KERNEL(NAME, T, ...)                                                                \
  kernel void NAME(device const uchar* codes [[buffer(0)]], device const float* absmax [[buffer(1)]],  \
                   device const T* x [[buffer(2)]], device T* y [[buffer(3)]],                         \
                   constant MetalLinearArguments& arguments [[buffer(4)]], KERNEL_POSITION) {               \
    NF4_TABLE(table);                                                                                  \
    const Nf4 w = {codes, absmax, table};                                                              \
    __VA_ARGS__(w, x, y, arguments, group, simdgroup, lane);                                           \
  }

#define NF4_DEQUANTIZE_KERNEL(NAME, T, FUNCTION)                                                       \
  kernel void NAME(device const uchar* codes [[buffer(0)]], device const float* absmax [[buffer(1)]],  \
                   device T* panel [[buffer(2)]], constant MetalLinearArguments& arguments [[buffer(3)]],   \
                   KERNEL_POSITION) {                                                                  \
    NF4_TABLE(table);                                                                                  \
    const Nf4 w = {codes, absmax, table};                                                              \
    FUNCTION<Nf4, T>(w, panel, arguments, group, simdgroup, lane);                                     \
  }

#define NF4_KERNELS(T)                                                  \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_1, T, linear_rows<Nf4, T, T, 1>)        \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_2, T, linear_rows<Nf4, T, T, 2>)        \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_4, T, linear_rows<Nf4, T, T, 4>)        \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_6, T, linear_rows<Nf4, T, T, 6>)        \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_8, T, linear_rows<Nf4, T, T, 8>)        \
  NF4_LINEAR_KERNEL(nf4_linear_##T##_any, T, linear_any<Nf4, T, T>)     \
  NF4_DEQUANTIZE_KERNEL(nf4_dequantize_##T, T, dequantize_chunks)              \
  NF4_DEQUANTIZE_KERNEL(nf4_dequantize_##T##_any, T, dequantize_any)

NF4_KERNELS(float)
NF4_KERNELS(half)
#if __METAL_VERSION__ >= 310
NF4_KERNELS(bfloat)
#endif
