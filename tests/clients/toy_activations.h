#ifndef TESTS_CLIENTS_TOY_ACTIVATIONS_H_
#define TESTS_CLIENTS_TOY_ACTIVATIONS_H_

#include <cstdint>
#include <vector>

#include "clients/lib/model_client.h"
#include "google/protobuf/repeated_field.h"

namespace mechinterp::testing {

// Logits and residual streams for the toy model that depend on the tokens so
// far and on nothing else, with known differences between two toys. Pure
// functions.

inline constexpr int kResidualSize = 16;

struct ToyDeviation {
  // Times a pseudo-random number in [-1, 1) of its own is added to each logit.
  float logit_noise = 0;
  // The residual stream after layer l is this x (l + 1) longer.
  float residual_error = 0;
};

// [kVocabulary] after these tokens: pseudo-random numbers in [-3, 3).
std::vector<float> ToyLogits(const std::vector<uint32_t>& context, const ToyDeviation& deviation);

// [kResidualSize] after these tokens and a layer.
std::vector<float> ToyResidual(const std::vector<uint32_t>& context, uint32_t layer,
                               const ToyDeviation& deviation);

// What a server would send for LOGITS and RESID_POST sites, at all positions.
std::vector<Activation> ToyActivations(const google::protobuf::RepeatedField<uint32_t>& token_ids,
                                       const google::protobuf::RepeatedPtrField<v1::HookSite>& sites,
                                       const ToyDeviation& deviation);

}  // namespace mechinterp::testing

#endif  // TESTS_CLIENTS_TOY_ACTIVATIONS_H_
