#include "services/engine/checkpoint/unused_tensors.h"

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "services/engine/checkpoint/nf4.h"
#include "services/engine/checkpoint/tensor_table.h"

namespace mechinterp::engine {
namespace {

// Tensors that the model reads, were they all there, and the parts of those that are NF4.
std::set<std::string> UsedNames(const ModelConfig& config, const std::set<std::string>& present) {
  std::set<std::string> used;
  for (const TensorInfo& tensor : ModelTensors(config)) {
    used.insert(tensor.name);
    if (tensor.shape.size() != 2 || !present.contains(Nf4StateName(tensor.name))) continue;
    for (const std::string& part : Nf4PartNames(tensor.name)) used.insert(part);
  }
  return used;
}

bool IsRotaryBuffer(absl::string_view name) {
  for (const absl::string_view buffer : {"inv_freq", "original_inv_freq", "cos_cached", "sin_cached"}) {
    if (absl::EndsWith(name, absl::StrCat("rotary_emb.", buffer))) return true;
  }
  return false;
}

// The block that a tensor's name puts it in; -1: none.
int LayerOf(absl::string_view name) {
  int layer = -1;
  if (!absl::ConsumePrefix(&name, "model.layers.")) return -1;
  return absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) ? layer : -1;
}

// What such a tensor is, and what to do about it.
std::string Reason(const ModelConfig& config, absl::string_view name) {
  if (absl::StrContains(name, "lora_") || absl::StartsWith(name, "base_model.")) {
    return "of an adapter (LoRA): merge it into its model (in PEFT: merge_and_unload) and save that";
  }
  if (LayerOf(name) >= config.layer_count()) {
    return absl::StrCat("of layers past the ", config.layer_count(),
                        " that num_hidden_layers in config.json says there are");
  }
  if (absl::EndsWith(name, ".bias")) {
    return absl::StrCat("biases that ", config.architecture,
                        " with this config.json does not have: where the model was trained with them, say so "
                        "there (attention_bias, mlp_bias, or the architecture that has them); else save the "
                        "checkpoint without them");
  }
  if (absl::EndsWith(name, "self_attn.q_norm.weight") || absl::EndsWith(name, "self_attn.k_norm.weight")) {
    return absl::StrCat("norms of queries and keys, which ", config.architecture,
                        " does not have: config.json must name the architecture that has them");
  }
  return absl::StrCat("unknown to ", config.architecture,
                      ": config.json may name the wrong architecture; else save the checkpoint without them");
}

// "'a', 'b', 'c' and 4 more".
std::string FirstOf(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3, kMaxBytes = 200;
  std::vector<std::string> shown;
  for (size_t i = 0; i < names.size() && i < kShown; ++i) {
    shown.push_back(absl::StrCat("'", names[i].substr(0, kMaxBytes), "'"));
  }
  std::string text = absl::StrJoin(shown, ", ");
  if (names.size() > kShown) absl::StrAppend(&text, " and ", names.size() - kShown, " more");
  return text;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> FindUnusedTensors(const ModelConfig& config,
                                                           const std::vector<std::string>& names) {
  const std::set<std::string> used = UsedNames(config, {names.begin(), names.end()});
  std::vector<std::string> harmless;
  std::map<std::string, std::vector<std::string>> by_reason;
  for (const std::string& name : names) {
    if (used.contains(name)) continue;
    (IsRotaryBuffer(name) ? harmless : by_reason[Reason(config, name)]).push_back(name);
  }
  if (by_reason.empty()) return harmless;
  std::vector<std::string> parts;
  for (const auto& [reason, of_it] : by_reason) parts.push_back(absl::StrCat(FirstOf(of_it), ", ", reason));
  return absl::InvalidArgumentError(
      absl::StrCat("the files hold tensors that the model would not use: ", absl::StrJoin(parts, "; ")));
}

}  // namespace mechinterp::engine
