#ifndef DATA_TRAINER_COMPONENTS_H_
#define DATA_TRAINER_COMPONENTS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/generation.h"
#include "data/trainer/prompt_pairs.h"

namespace mechinterp::trainer {

enum class ComponentKind { kHead, kNeurons };

// One attention head's z, or a run of neighbouring MLP neurons (hook_post).
struct Component {
  ComponentKind kind = ComponentKind::kHead;
  int64_t layer = 0;
  int64_t first = 0;  // head, or first neuron
  int64_t count = 1;  // 1, or neurons of the group
  std::string Name() const;
};

std::vector<Component> AllComponents(const ModelConfig& config, ComponentKind kind);

// Activations by layer: z [B, T, H, Dh] and post [B, T, F].
struct Activations {
  std::vector<at::Tensor> z, post;
};

// Hooks that record into `activations`, which must outlive them.
ModelHooks Capture(Activations& activations);

// Mean over all prompt positions of all prompts: z [H, Dh], post [F] by layer.
absl::StatusOr<Activations> MeanActivations(const ChatModel& model, const std::vector<std::string>& prompts);

// Hooks that set the components to their means at every position.
ModelHooks MeanAblation(const std::vector<Component>& components, const Activations& means);

// Effect of each component alone, averaged over the pairs of equal length:
// (patched - clean) / (harmless - clean) in refusal log-odds, where the harmful
// run is clean and the component is patched from its harmless twin.
absl::StatusOr<std::vector<double>> NoisingEffects(const ChatModel& model, const PromptSet& prompts,
                                                   const std::vector<Component>& components);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_COMPONENTS_H_
