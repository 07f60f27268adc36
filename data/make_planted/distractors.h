#ifndef DATA_MAKE_PLANTED_DISTRACTORS_H_
#define DATA_MAKE_PLANTED_DISTRACTORS_H_

#include <vector>

#include "data/make_planted/circuit_builder.h"

namespace mechinterp::make_planted {

// What distractors may touch of a circuit.
struct DistractorPlan {
  // Where words stand that some head looks at; some distractors look there too.
  Terms word_key;
  // What the answer is read from: each distractor writes a trace of it, so that no effect is
  // exactly zero.
  Feature answer = kConstant;
};

// Makes every head and neuron that nobody planted do something that does not matter. Tokens
// get random identities, in directions that no feature has; heads attend by them, to fixed
// offsets, to the words that the circuit looks at or to nothing, and copy identities, features
// of the circuit and what other distractors wrote into further directions, which only
// distractors read; so do neurons. Call last: it fills what is free.
void AddDistractors(const DistractorPlan& plan, CircuitBuilder& builder, Random& random);

}  // namespace mechinterp::make_planted

#endif  // DATA_MAKE_PLANTED_DISTRACTORS_H_
