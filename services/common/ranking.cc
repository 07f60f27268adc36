#include "services/common/ranking.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mechinterp {
namespace {

bool IsRanked(const v1::ComponentEffect& effect) {
  const v1::ComponentKind kind = effect.component().kind();
  return (kind == v1::COMPONENT_KIND_HEAD || kind == v1::COMPONENT_KIND_NEURON_GROUP) &&
         std::isfinite(effect.effect().mean());
}

// What makes two effects those of one component.
auto Identity(const v1::Component& component) {
  return std::make_tuple(component.layer(), component.kind(), component.head(), component.neuron_begin(),
                         component.neuron_end());
}

double Score(const v1::RankedComponent& ranked) {
  if (!ranked.has_denoising()) return ranked.noising().mean();
  if (!ranked.has_noising()) return ranked.denoising().mean();
  return (ranked.denoising().mean() + ranked.noising().mean()) / 2;
}

}  // namespace

std::vector<v1::RankedComponent> RankComponents(absl::Span<const v1::ComponentEffect* const> effects) {
  std::map<decltype(Identity({})), v1::RankedComponent> by_component;
  for (const v1::ComponentEffect* effect : effects) {
    if (!IsRanked(*effect)) continue;
    v1::RankedComponent& ranked = by_component[Identity(effect->component())];
    *ranked.mutable_component() = effect->component();
    if (effect->direction() == v1::PATCH_DIRECTION_DENOISING) *ranked.mutable_denoising() = effect->effect();
    if (effect->direction() == v1::PATCH_DIRECTION_NOISING) *ranked.mutable_noising() = effect->effect();
  }

  std::vector<v1::RankedComponent> ranking;
  for (auto& [identity, ranked] : by_component) {
    if (!ranked.has_denoising() && !ranked.has_noising()) continue;
    if (ranked.component().name().empty()) {
      ranked.mutable_component()->set_name(ComponentName(ranked.component()));
    }
    ranked.set_score(Score(ranked));
    ranking.push_back(std::move(ranked));
  }
  std::sort(ranking.begin(), ranking.end(), [](const v1::RankedComponent& a, const v1::RankedComponent& b) {
    return std::make_tuple(-a.score(), a.component().layer(), a.component().name()) <
           std::make_tuple(-b.score(), b.component().layer(), b.component().name());
  });
  for (size_t i = 0; i < ranking.size(); ++i) ranking[i].set_rank(static_cast<uint32_t>(i + 1));
  return ranking;
}

std::vector<v1::LayerImportance> ImportanceByLayer(absl::Span<const v1::RankedComponent> ranking,
                                                   int layer_count) {
  std::vector<v1::LayerImportance> layers(std::max(layer_count, 0));
  for (size_t i = 0; i < layers.size(); ++i) layers[i].set_layer(static_cast<uint32_t>(i));
  for (const v1::RankedComponent& ranked : ranking) {
    if (ranked.component().layer() >= layers.size() || !(ranked.score() > 0)) continue;
    v1::LayerImportance& layer = layers[ranked.component().layer()];
    layer.set_importance(layer.importance() + ranked.score());
    if (ranked.component().kind() == v1::COMPONENT_KIND_HEAD) {
      layer.set_head_importance(layer.head_importance() + ranked.score());
    } else {
      layer.set_neuron_importance(layer.neuron_importance() + ranked.score());
    }
  }
  return layers;
}

void AddMissingRanking(v1::PatchingResults& results) {
  if (results.ranking().empty()) {
    const std::vector<const v1::ComponentEffect*> effects(results.effects().pointer_begin(),
                                                          results.effects().pointer_end());
    const std::vector<v1::RankedComponent> ranking = RankComponents(effects);
    results.mutable_ranking()->Assign(ranking.begin(), ranking.end());
  }
  if (results.layers().empty()) {
    const std::vector<v1::RankedComponent> ranking(results.ranking().begin(), results.ranking().end());
    const std::vector<v1::LayerImportance> layers =
        ImportanceByLayer(ranking, static_cast<int>(results.layer_count()));
    results.mutable_layers()->Assign(layers.begin(), layers.end());
  }
}

std::string ComponentName(const v1::Component& component) {
  const std::string layer = absl::StrCat("L", component.layer(), ".");
  const std::string position = component.has_position() ? absl::StrCat("@", component.position()) : "";
  switch (component.kind()) {
    case v1::COMPONENT_KIND_RESID_PRE:
      return absl::StrCat(layer, "resid_pre", position);
    case v1::COMPONENT_KIND_ATTN_OUT:
      return absl::StrCat(layer, "attn_out", position);
    case v1::COMPONENT_KIND_MLP_OUT:
      return absl::StrCat(layer, "mlp_out", position);
    case v1::COMPONENT_KIND_HEAD:
      return absl::StrCat(layer, "H", component.head());
    case v1::COMPONENT_KIND_NEURON_GROUP: {
      const uint32_t end = std::max(component.neuron_end(), component.neuron_begin() + 1);
      return absl::StrCat(layer, "N", component.neuron_begin(), "-", end - 1);
    }
    default:
      return absl::StrCat(layer, "?");
  }
}

}  // namespace mechinterp
