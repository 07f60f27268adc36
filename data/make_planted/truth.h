#ifndef DATA_MAKE_PLANTED_TRUTH_H_
#define DATA_MAKE_PLANTED_TRUTH_H_

#include "data/make_planted/dense_matrix.h"
#include "data/make_planted/planting.h"
#include "data/make_planted/variants.h"
#include "nlohmann/json.hpp"

namespace mechinterp::make_planted {

// What is true of a planted model by its construction (README.md lists the fields): its nodes
// with the effects that patching each alone has, its edges, backups and decoys, and the pairs
// of prompts that it tells apart; of some variants the directions that harm takes. `basis`: of its
// features.
nlohmann::ordered_json TruthOf(const Variant& variant, const Planting& planting,
                               const CircuitBuilder& builder, const Answers& answers,
                               const DenseMatrix& basis);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_TRUTH_H_
