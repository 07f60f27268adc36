#ifndef SERVICES_ENGINE_KERNELS_LOGIT_REDUCTIONS_H_
#define SERVICES_ENGINE_KERNELS_LOGIT_REDUCTIONS_H_

#include <cstdint>

namespace mechinterp::engine::kernels {

// Reductions over a row of logits, for sampling and metrics. The logits are
// fp32; exponentials and sums are in double precision, which costs little (the
// row is read from the cache) and keeps the small divergences of weak patches.
// One thread; the order of additions depends on `count` and the instruction set
// alone. Thread-safe. Nothing allocates.

// Largest of the values that are not NaN; -infinity for none.
float MaxValue(const float* x, int64_t count);

// Index of the largest value, the lowest among equals. NaN is never chosen; 0
// where there is nothing else.
int64_t ArgMax(const float* x, int64_t count);

// Sum of exp(x[i] - shift). NaN if any difference is.
double SumExp(const float* x, int64_t count, double shift);

// weights[i] = exp((x[i] - shift) / temperature), 0 where that is NaN; returns
// their sum.
double ExpWeights(const float* x, int64_t count, double shift, double temperature, double* weights);

// Sum of weights[i] * (a[i] - b[i]), leaving out weights of 0: there the
// difference may be infinite.
double WeightedDifference(const double* weights, const float* a, const float* b, int64_t count);

}  // namespace mechinterp::engine::kernels

#endif  // SERVICES_ENGINE_KERNELS_LOGIT_REDUCTIONS_H_
