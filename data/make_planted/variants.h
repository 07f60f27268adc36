#ifndef DATA_MAKE_PLANTED_VARIANTS_H_
#define DATA_MAKE_PLANTED_VARIANTS_H_

#include <string>
#include <vector>

#include "data/make_planted/planting.h"

namespace mechinterp::make_planted {

// A circuit that a model can be made to refuse by.
struct Variant {
  std::string name;         // "single_path"
  std::string description;  // a sentence
  // Plants it: heads, neurons, and what logits read of them.
  void (*plant)(Planting& planting);
  // The pairs that it gets right.
  std::vector<int> (*pairs)(const Words& words);
};

const std::vector<Variant>& Variants();

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_VARIANTS_H_
