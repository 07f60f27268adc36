#ifndef SERVICES_ENGINE_CHECKPOINT_SUPPORTED_CONFIG_H_
#define SERVICES_ENGINE_CHECKPOINT_SUPPORTED_CONFIG_H_

#include "absl/status/status.h"
#include "services/engine/checkpoint/config_reader.h"

namespace mechinterp::engine {

// Whether the engine computes what a config.json describes, the family and its layers aside
// (model_family.h). Unimplemented, naming what is not supported and what is: another
// activation than SiLU, experts, quantization other than bitsandbytes NF4. InvalidArgument for keys of the
// wrong type. Keys that change nothing in inference (pretraining_tp, attention_dropout) are not looked at.
absl::Status CheckSupportedConfig(const ConfigReader& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_SUPPORTED_CONFIG_H_
