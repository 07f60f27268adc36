#ifndef DATA_MAKE_TRAINED_TRUTH_H_
#define DATA_MAKE_TRAINED_TRUTH_H_

#include "data/make_trained/circuit_measurement.h"
#include "data/make_trained/task.h"
#include "nlohmann/json.hpp"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_trained {

// What a trained model was trained to be true of it, in the fields of a planted model's truth.json
// (README.md lists what is added): by the circuit alone, without a forward pass.
nlohmann::ordered_json TruthOf(const Task& task, const EdgeSpace& space, const engine::Tokenizer& tokenizer);

// What was measured, of the fields "accuracy" and "effect_errors".
nlohmann::ordered_json AccuracyJson(const Accuracies& accuracies);
nlohmann::ordered_json EffectErrorsJson(const EffectErrors& errors);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_TRUTH_H_
