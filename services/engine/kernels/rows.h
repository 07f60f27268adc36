#ifndef SERVICES_ENGINE_KERNELS_ROWS_H_
#define SERVICES_ENGINE_KERNELS_ROWS_H_

#include <cstdint>

namespace mechinterp::engine::kernels {

// The CPU arithmetic of the forward pass, in fp32, with Highway: compiled for
// several instruction sets, the best one chosen at run time.
//
// Batch invariance: the order of additions that makes an output element depends
// on the sizes of that element's own operands alone. Not on how many rows are
// computed together, nor on the number of threads. So a prompt's numbers are
// bit-identical alone, in a batch and in a sweep.
//
// All arrays are contiguous, row-major; inputs and outputs do not overlap unless
// said. Thread-safe.

// scale[i] = sqrt(mean(x[i]^2) + epsilon) for each of n rows of `width`.
void RootMeanSquare(const float* x, int64_t n, int64_t width, float epsilon, float* scale);

// y[i] = x[i] / scale[i]; y may be x.
void DivideRows(const float* x, const float* scale, int64_t n, int64_t width, float* y);

// y[i] = x[i] * gain, element by element; y may be x.
void MultiplyColumns(const float* x, const float* gain, int64_t n, int64_t width, float* y);

// x += y, `count` elements.
void AddInPlace(float* x, const float* y, int64_t count);

// y = SiLU(gate) * up, SiLU(g) = g / (1 + exp(-g)).
void SiluMultiply(const float* gate, const float* up, int64_t count, float* y);

// Rotates pairs (i, i + head_size/2) of each head, Hugging Face's layout of
// rotary embeddings (Su et al. 2021). x: [heads, head_size], in place; cosines
// and sines: [head_size/2] of the row's position.
void RotateRow(float* x, int64_t heads, int64_t head_size, const float* cosines, const float* sines);

// Keys or values of one key/value head: `count` rows of head_size, `stride`
// floats apart. A sequence is two stretches: what it shares, and its own.
struct HeadRows {
  const float* data = nullptr;
  int64_t count = 0;
};
struct HeadSequence {
  HeadRows shared;
  HeadRows own;
  int64_t stride = 0;
  int64_t count() const { return shared.count + own.count; }
  // What is left without the first `skipped` rows.
  HeadSequence From(int64_t skipped) const {
    const int64_t of_shared = skipped < shared.count ? skipped : shared.count;
    return {Skip(shared, of_shared), Skip(own, skipped - of_shared), stride};
  }

 private:
  HeadRows Skip(const HeadRows& rows, int64_t skipped) const {
    return {rows.data == nullptr ? nullptr : rows.data + skipped * stride, rows.count - skipped};
  }
};

// The three steps of attention, for one query row of `heads` query heads that share a
// key/value head (grouped-query attention, Ainslie et al. 2023), over the first
// `visible` positions. A key or a value is read once for several heads; each head's
// numbers are those that it has alone.
//
// queries [heads, head_size]; scores[h * stride + t] = (query_h . key_t) * scale.
void ScoreRows(const float* queries, int64_t heads, const HeadSequence& keys, int64_t visible,
               int64_t head_size, float scale, float* scores, int64_t stride);
// scores become probabilities, in place. -infinity gives 0.
void SoftmaxRow(float* scores, int64_t count);
// z [heads, head_size]: z_h = sum over t of pattern[h * stride + t] value_t.
void MixRows(const float* pattern, int64_t stride, int64_t heads, const HeadSequence& values, int64_t visible,
             int64_t head_size, float* z);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_ROWS_H_
