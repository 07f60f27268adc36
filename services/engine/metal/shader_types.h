#ifndef SERVICES_ENGINE_METAL_SHADER_TYPES_H_
#define SERVICES_ENGINE_METAL_SHADER_TYPES_H_

// What C++ and the shaders share. This file opens the shader source, so it may use
// only what both languages have.

// The last argument of every kernel.
struct MetalLinearArguments {
  unsigned int rows;          // of x and y; when dequantizing, of the panel written
  unsigned int in;            // weights of one output
  unsigned int out;           // outputs of the whole matrix
  unsigned int first_output;  // where a dequantized panel starts; 0 otherwise
};

// NF4's values (Dettmers et al. 2023), as bitsandbytes has them.
#define NF4_CODES                                                                                       \
  {                                                                                                     \
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,    \
        -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, \
        0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f,          \
        0.7229568362236023f, 1.0f                                                                       \
  }

#endif  // SERVICES_ENGINE_METAL_SHADER_TYPES_H_
