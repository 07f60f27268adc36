#include "tests/services/engine/metal/naive_linear.h"

#include <ATen/ATen.h>

#include <cmath>
#include <random>

namespace mechinterp::engine::metal {
namespace {

// bitsandbytes' table, written out a second time on purpose.
constexpr float kTable[16] = {-1.0f,
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
                              1.0f};

}  // namespace

QuantizedMatrix RandomMatrix(NumberFormat format, int64_t out, int64_t in, unsigned seed) {
  std::mt19937 random(seed);
  const bool nf4 = format == NumberFormat::kNf4;
  QuantizedMatrix w{format, out, in, {}, {}};
  w.weights = at::empty({nf4 ? (out * in + 1) / 2 : out * in}, nf4 ? at::kByte : at::kChar);
  w.scales = at::empty({nf4 ? (out * in + 63) / 64 : out * ((in + 63) / 64)}, at::kFloat);
  auto* bytes = static_cast<uint8_t*>(w.weights.data_ptr());
  for (int64_t i = 0; i < w.weights.numel(); ++i) bytes[i] = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> scale(0.01f, 0.1f);
  for (int64_t i = 0; i < w.scales.numel(); ++i) {
    w.scales.data_ptr<float>()[i] = nf4 ? scale(random) : scale(random) / 127;
  }
  return w;
}

float NaiveWeight(const QuantizedMatrix& w, int64_t output, int64_t k) {
  const int64_t index = output * w.in + k;
  const float* scales = w.scales.data_ptr<float>();
  if (w.format == NumberFormat::kInt8) {
    return static_cast<float>(w.weights.data_ptr<int8_t>()[index]) *
           scales[output * ((w.in + 63) / 64) + k / 64];
  }
  const uint8_t byte = w.weights.data_ptr<uint8_t>()[index / 2];
  return kTable[index % 2 == 0 ? byte >> 4 : byte & 15] * scales[index / 64];
}

std::vector<NaiveProduct> NaiveLinear(const at::Tensor& x, const QuantizedMatrix& w) {
  const at::Tensor exact = x.to(at::kFloat).contiguous();
  std::vector<NaiveProduct> products(x.size(0) * w.out);
  for (int64_t o = 0; o < w.out; ++o) {
    for (int64_t k = 0; k < w.in; ++k) {
      const double weight = NaiveWeight(w, o, k);
      for (int64_t r = 0; r < x.size(0); ++r) {
        const double term = weight * exact.data_ptr<float>()[r * w.in + k];
        products[r * w.out + o].value += term;
        products[r * w.out + o].magnitude += std::abs(term);
      }
    }
  }
  return products;
}

}  // namespace mechinterp::engine::metal
