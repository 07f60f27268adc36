#ifndef SERVICES_ENGINE_CHECKPOINT_ROPE_CONFIG_H_
#define SERVICES_ENGINE_CHECKPOINT_ROPE_CONFIG_H_

#include "absl/status/status.h"
#include "services/engine/checkpoint/config_reader.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// Reads the settings of rotary embeddings as transformers 5 does, and what they make of the
// context: rope_theta, rope_scaling and context_length of `model`.
//
// They stand in rope_scaling, or else in rope_parameters, as newer files have it; rope_theta
// there or at the top level. `rope_type` there (older: `type`) names the scaling. The context
// that a linear, dynamic or yarn scaling is made for is taken to be as many times as long as
// its factor says, of max_position_embeddings or, for yarn, the original length.
//
// `default_context`: max_position_embeddings, where it does not stand.
//
// Errors: Unimplemented for other types of scaling, settings of each kind of layer, and rotary
// embeddings of only a part of each head; InvalidArgument for keys that are missing or wrong.
absl::Status ReadRope(const ConfigReader& config, int default_context, ModelConfig& model);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_ROPE_CONFIG_H_
