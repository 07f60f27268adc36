#ifndef DATA_MAKE_CHECKPOINT_RANDOM_WEIGHTS_H_
#define DATA_MAKE_CHECKPOINT_RANDOM_WEIGHTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "services/engine/checkpoint/checkpoint_writer.h"

namespace mechinterp::make_checkpoint {

// A tensor of normally distributed values of type `dtype` (kF32, kF16 or kBF16).
// A matrix [out, in] has mean 0 and deviation 1/sqrt(in), so that it keeps the
// size of what it is applied to; a gain has mean 1 and deviation 0.1, a bias mean 0 and that. Each
// value depends on seed, name and place alone: the same tensor of a model with
// more layers, or in other shards, is the same. Values are drawn from a table of
// 65,536, which makes a gigabyte of bf16 in about half a second; their mean is
// zero (one) to rounding.
engine::TensorSource RandomTensor(const std::string& name, const std::vector<int64_t>& shape,
                                  engine::NumberFormat dtype, uint64_t seed);

}  // namespace mechinterp::make_checkpoint

#endif  // DATA_MAKE_CHECKPOINT_RANDOM_WEIGHTS_H_
