#ifndef SERVICES_ENGINE_CHECKPOINT_MODEL_FAMILY_H_
#define SERVICES_ENGINE_CHECKPOINT_MODEL_FAMILY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/engine/checkpoint/config_reader.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::engine {

// The families of models that the engine computes: what their names in config.json mean for
// each layer. A family whose blocks LayerConfig can describe is a row in model_family.cc and
// nothing else.

// More are a mistake in a file: memory for each layer is taken before its tensors are seen.
inline constexpr int kMaxLayers = 10'000;

// "LlamaForCausalLM (Llama 2 to 3.3 and all of that shape), ...": for messages.
std::string SupportedFamilies();

// The layers of a config.json, whose architecture is named in it, in a context of so many
// positions. Errors: Unimplemented,
// naming what is not supported and what is; InvalidArgument for keys that are missing or of
// the wrong type.
absl::StatusOr<std::vector<LayerConfig>> ReadLayers(const ConfigReader& config, int context_length);

// The max_position_embeddings that transformers takes for the architecture where config.json has
// none. Errors as above.
absl::StatusOr<int> DefaultContextLength(const ConfigReader& config);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_CHECKPOINT_MODEL_FAMILY_H_
