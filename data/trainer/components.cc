#include "data/trainer/components.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "absl/strings/str_format.h"
#include "data/trainer/encoding.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

constexpr int64_t kNeuronGroup = 16;

at::Tensor AsRow(const std::vector<int64_t>& ids) {
  return at::tensor(ids, at::kLong).view({1, static_cast<int64_t>(ids.size())});
}

// The slice of layer activations that is `component`: its heads or neurons.
at::Tensor Slice(const at::Tensor& activation, const Component& component) {
  const int64_t dim = component.kind == ComponentKind::kHead ? activation.dim() - 2 : activation.dim() - 1;
  return activation.narrow(dim, component.first, component.count);
}

// Row c of the batch has component c patched from `source` (one row).
ModelHooks PatchRows(const std::vector<Component>& components, const Activations& source) {
  const auto patch = [&components](ComponentKind kind, int64_t layer, at::Tensor x, const at::Tensor& from) {
    for (size_t c = 0; c < components.size(); ++c) {
      if (components[c].kind != kind || components[c].layer != layer) continue;
      Slice(x[static_cast<int64_t>(c)], components[c]).copy_(Slice(from[0], components[c]));
    }
    return x;
  };
  ModelHooks hooks;
  hooks.on_z = [patch, &source](int64_t layer, at::Tensor z) {
    return patch(ComponentKind::kHead, layer, z, source.z[static_cast<size_t>(layer)]);
  };
  hooks.on_post = [patch, &source](int64_t layer, at::Tensor post) {
    return patch(ComponentKind::kNeurons, layer, post, source.post[static_cast<size_t>(layer)]);
  };
  return hooks;
}

}  // namespace

std::string Component::Name() const {
  if (kind == ComponentKind::kHead) return absl::StrFormat("L%d.H%d", layer, first);
  return absl::StrFormat("L%d.N%d-%d", layer, first, first + count - 1);
}

std::vector<Component> AllComponents(const ModelConfig& config, ComponentKind kind) {
  std::vector<Component> components;
  const bool heads = kind == ComponentKind::kHead;
  const int64_t end = heads ? config.heads : config.intermediate_size, step = heads ? 1 : kNeuronGroup;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    for (int64_t first = 0; first < end; first += step) {
      components.push_back({kind, layer, first, std::min(step, end - first)});
    }
  }
  return components;
}

ModelHooks Capture(Activations& activations) {
  activations = {};
  ModelHooks hooks;
  hooks.on_z = [&activations](int64_t, at::Tensor z) { return activations.z.push_back(z.clone()), z; };
  hooks.on_post = [&activations](int64_t, at::Tensor post) {
    return activations.post.push_back(post.clone()), post;
  };
  return hooks;
}

absl::StatusOr<Activations> MeanActivations(const ChatModel& model, const std::vector<std::string>& prompts) {
  const c10::AutoGradMode no_gradients(false);
  Activations means;
  int64_t positions = 0;
  for (const std::string& prompt : prompts) {
    ABSTRACT_ASSIGN_OR_RETURN(const EncodedPrompt encoded, EncodePrompt(*model.tokenizer, prompt));
    Activations run;
    Forward(model.config, model.weights, AsRow(encoded.ids), nullptr, Capture(run));
    positions += static_cast<int64_t>(encoded.ids.size());
    for (size_t layer = 0; layer < run.z.size(); ++layer) {
      const at::Tensor z = run.z[layer].sum(at::IntArrayRef{0, 1}),
                       post = run.post[layer].sum(at::IntArrayRef{0, 1});
      if (means.z.size() <= layer) {
        means.z.push_back(z);
        means.post.push_back(post);
      } else {
        means.z[layer].add_(z);
        means.post[layer].add_(post);
      }
    }
  }
  for (at::Tensor& z : means.z) z.div_(static_cast<double>(positions));
  for (at::Tensor& post : means.post) post.div_(static_cast<double>(positions));
  return means;
}

ModelHooks MeanAblation(const std::vector<Component>& components, const Activations& means) {
  const auto ablate = [components](ComponentKind kind, int64_t layer, at::Tensor x, const at::Tensor& mean) {
    for (const Component& component : components) {
      if (component.kind == kind && component.layer == layer) {
        Slice(x, component).copy_(Slice(mean, component));
      }
    }
    return x;
  };
  ModelHooks hooks;
  hooks.on_z = [ablate, means](int64_t layer, at::Tensor z) {
    return ablate(ComponentKind::kHead, layer, z, means.z[static_cast<size_t>(layer)]);
  };
  hooks.on_post = [ablate, means](int64_t layer, at::Tensor post) {
    return ablate(ComponentKind::kNeurons, layer, post, means.post[static_cast<size_t>(layer)]);
  };
  return hooks;
}

absl::StatusOr<std::vector<double>> NoisingEffects(const ChatModel& model, const PromptSet& prompts,
                                                   const std::vector<Component>& components) {
  const c10::AutoGradMode no_gradients(false);
  const int64_t refusal = *model.tokenizer->TokenToId("I");
  const auto last_log_odds = [&](const at::Tensor& ids, const ModelHooks& hooks) {
    const at::Tensor hidden = Forward(model.config, model.weights, ids, nullptr, hooks);
    return TokenLogOdds(Logits(model.weights, hidden.select(1, -1)), refusal);
  };
  std::vector<double> effects(components.size(), 0.0);
  int used = 0;
  for (const PromptPair& pair : prompts.pairs) {
    ABSTRACT_ASSIGN_OR_RETURN(const auto harmful, EncodePrompt(*model.tokenizer, pair.harmful));
    ABSTRACT_ASSIGN_OR_RETURN(const auto harmless, EncodePrompt(*model.tokenizer, pair.harmless));
    if (harmful.ids.size() != harmless.ids.size()) continue;
    Activations source;
    const double base = last_log_odds(AsRow(harmless.ids), Capture(source)).item<double>();
    const double clean = last_log_odds(AsRow(harmful.ids), {}).item<double>();
    const at::Tensor rows = AsRow(harmful.ids).repeat({static_cast<int64_t>(components.size()), 1});
    const at::Tensor patched = last_log_odds(rows, PatchRows(components, source));
    for (size_t c = 0; c < components.size(); ++c) {
      effects[c] += (patched.data_ptr<double>()[c] - clean) / (base - clean);
    }
    ++used;
  }
  if (used == 0) return absl::FailedPreconditionError("no pair of prompts is of equal length");
  for (double& effect : effects) effect /= used;
  return effects;
}

}  // namespace mechinterp::trainer
