#include "clients/experiments/ablation_plan.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"

namespace mechinterp {
namespace {

// Moves `count` random elements to the front of `pool` and cuts off the others.
// By hand: std::shuffle gives other orders with other standard libraries.
void KeepRandom(size_t count, std::mt19937_64& random, std::vector<v1::Component>& pool) {
  for (size_t i = 0; i < count; ++i) {
    const size_t j = i + static_cast<size_t>(random() % (pool.size() - i));
    std::swap(pool[i], pool[j]);
  }
  pool.resize(count);
}

void CheckComponent(const v1::Component& component, const v1::GetModelResponse& model,
                    const FieldViolations& at) {
  if (component.layer() >= model.layer_count()) {
    at.At("layer").Add(absl::StrCat("must be below the model's ", model.layer_count()));
  }
  switch (component.kind()) {
    case v1::COMPONENT_KIND_HEAD:
      if (component.head() < model.head_count()) return;
      return at.At("head").Add(absl::StrCat("must be below the model's ", model.head_count()));
    case v1::COMPONENT_KIND_NEURON_GROUP:
      if (component.neuron_begin() < component.neuron_end() && component.neuron_end() <= model.d_ff()) return;
      return at.At("neuron_end")
          .Add(absl::StrCat("must be above neuron_begin and at most the model's ", model.d_ff()));
    default:
      return at.At("kind").Add("must be HEAD or NEURON_GROUP");
  }
}

}  // namespace

absl::Status CheckRanking(absl::Span<const v1::RankedComponent> ranking, const v1::GetModelResponse& model) {
  Violations violations;
  for (size_t i = 0; i < ranking.size(); ++i) {
    CheckComponent(ranking[i].component(), model, violations.root().At("ranking", i).At("component"));
  }
  return ToStatus(violations);
}

std::vector<v1::Component> TopComponents(absl::Span<const v1::RankedComponent> ranking, int count) {
  std::vector<v1::Component> components;
  for (const v1::RankedComponent& ranked : ranking.first(static_cast<size_t>(count))) {
    components.push_back(ranked.component());
  }
  return components;
}

std::optional<std::vector<v1::Component>> RandomComponents(absl::Span<const v1::RankedComponent> ranking,
                                                           int count, int draw, uint64_t seed) {
  std::seed_seq mixed{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32),
                      static_cast<uint32_t>(count), static_cast<uint32_t>(draw)};
  std::mt19937_64 random(mixed);
  std::vector<v1::Component> drawn;
  for (const v1::ComponentKind kind : {v1::COMPONENT_KIND_HEAD, v1::COMPONENT_KIND_NEURON_GROUP}) {
    size_t wanted = 0;
    std::vector<v1::Component> pool;
    for (size_t i = 0; i < ranking.size(); ++i) {
      if (ranking[i].component().kind() != kind) continue;
      if (i < static_cast<size_t>(count)) {
        ++wanted;
      } else {
        pool.push_back(ranking[i].component());
      }
    }
    if (pool.size() < wanted) return std::nullopt;
    KeepRandom(wanted, random, pool);
    drawn.insert(drawn.end(), pool.begin(), pool.end());
  }
  return drawn;
}

double ParameterShare(absl::Span<const v1::Component> components, const v1::GetModelResponse& model) {
  if (model.parameter_count() == 0 || model.head_count() == 0) return 0;
  const double projection = static_cast<double>(model.d_model()) * model.head_size();
  const double key_value_share = static_cast<double>(model.key_value_head_count()) / model.head_count();
  const double head = 2 * projection + 2 * projection * key_value_share;
  const double neuron = 3.0 * model.d_model();
  double owned = 0;
  for (const v1::Component& component : components) {
    owned += component.kind() == v1::COMPONENT_KIND_HEAD
                 ? head
                 : neuron * (component.neuron_end() - component.neuron_begin());
  }
  return owned / static_cast<double>(model.parameter_count());
}

}  // namespace mechinterp
