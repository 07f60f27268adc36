// Weights of 8 bits with a scale for each 64 of an output, the output head's format:
// weights[out, in] of int8, scales[out, ceil(in / 64)]. Sums are stored as fp32
// whatever the activations are: these are logits.

struct Int8 {
  typedef uint4 Chunk;
  device const int8_t* weights;
  device const float* scales;

  Chunk load(uint output, uint k, uint in) const {
    return ((device const uint4*)weights)[(output * in + k) / 16];
  }
  float scale(uint output, uint k, uint in) const { return scales[output * ((in + 63) / 64) + k / 64]; }

  void decode(Chunk chunk, bool second, thread float* w) const {
    const float4 low = float4(as_type<char4>(second ? chunk.z : chunk.x));
    const float4 high = float4(as_type<char4>(second ? chunk.w : chunk.y));
    UNROLL
    for (int i = 0; i < 4; ++i) {
      w[i] = low[i];
      w[4 + i] = high[i];
    }
  }

  float value(uint output, uint k, uint in) const {
    return float(weights[output * in + k]) * scale(output, k, in);
  }
};

#define INT8_LINEAR_KERNEL(NAME, T, ...)                                                                \
  kernel void NAME(device const int8_t* weights [[buffer(0)]], device const float* scales [[buffer(1)]],  \
                   device const T* x [[buffer(2)]], device float* y [[buffer(3)]],                      \
                   constant MetalLinearArguments& arguments [[buffer(4)]], KERNEL_POSITION) {                \
    const Int8 w = {weights, scales};                                                                   \
    __VA_ARGS__(w, x, y, arguments, group, simdgroup, lane);                                            \
  }

#define INT8_DEQUANTIZE_KERNEL(NAME, T, FUNCTION)                                                       \
  kernel void NAME(device const int8_t* weights [[buffer(0)]], device const float* scales [[buffer(1)]],  \
                   device T* panel [[buffer(2)]], constant MetalLinearArguments& arguments [[buffer(3)]],    \
                   KERNEL_POSITION) {                                                                   \
    const Int8 w = {weights, scales};                                                                   \
    FUNCTION<Int8, T>(w, panel, arguments, group, simdgroup, lane);                                     \
  }

#define INT8_KERNELS(T)                                                        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_1, T, linear_rows<Int8, T, float, 1>)        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_2, T, linear_rows<Int8, T, float, 2>)        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_4, T, linear_rows<Int8, T, float, 4>)        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_6, T, linear_rows<Int8, T, float, 6>)        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_8, T, linear_rows<Int8, T, float, 8>)        \
  INT8_LINEAR_KERNEL(int8_linear_##T##_any, T, linear_any<Int8, T, float>)     \
  INT8_DEQUANTIZE_KERNEL(int8_dequantize_##T, T, dequantize_chunks)                   \
  INT8_DEQUANTIZE_KERNEL(int8_dequantize_##T##_any, T, dequantize_any)

INT8_KERNELS(float)
INT8_KERNELS(half)
#if __METAL_VERSION__ >= 310
INT8_KERNELS(bfloat)
#endif
