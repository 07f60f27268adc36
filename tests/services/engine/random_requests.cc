#include "tests/services/engine/random_requests.h"

namespace mechinterp::engine {

TokenizedPrompt RandomRequests::Prompt(int length) {
  TokenizedPrompt prompt;
  for (int i = 0; i < length; ++i) prompt.ids.push_back(Int(config_.vocabulary_size));
  return prompt;
}

HookSite RandomRequests::Site() {
  const std::vector<HookSite> sites = AllSites(config_);
  return sites[random_() % sites.size()];
}

HostTensor RandomRequests::Vector(int64_t size) {
  std::normal_distribution<float> normal;
  HostTensor vector{{size}, std::vector<float>(size)};
  for (float& value : vector.values) value = normal(random_);
  return vector;
}

Intervention RandomRequests::AnyIntervention(const TokenizedPrompt& prompt) {
  Intervention intervention;
  intervention.site = Site();
  const SiteShape shape = ShapeOf(intervention.site.point, config_);
  const bool is_scale = shape.width == 1;
  Selector& selector = intervention.selector;
  if (shape.has_head_axis && Int(3) > 0) selector.heads = {Int(shape.heads)};
  int width = shape.width == kWidthIsKeys ? prompt.length() : shape.width;
  if (Int(2) == 0 && width > 2) {
    selector.dims = {0, 1 + Int(width - 1)};
    width = 2;
  }
  switch (Int(3)) {
    case 0:
      selector.positions.indices = {Int(prompt.length())};
      break;
    case 1:
      selector.positions.ranges = {{-1 - Int(prompt.length()), std::nullopt}};
      break;
    default:
      break;  // everywhere
  }
  const ActivationSource source{Prompt(prompt.length()), {}, {}, {}};
  // Scales divide; zeros and negative ones would make the comparison meaningless.
  switch (is_scale ? Int(2) : Int(7)) {
    case 0:
      intervention.edit = Replacement{source};
      break;
    case 1:
      intervention.edit = Scaling{0.5 + Int(100) / 100.0};
      break;
    case 2:
      intervention.edit =
          MeanReplacement{{source, {Prompt(prompt.length()), {}, {}, {}}}, MeanAxis::kSourcesAndPositions};
      if (IsOverKeys(intervention.site.point)) selector.scope = InterventionScope::kPrompt;
      break;
    case 3:
      intervention.edit =
          MeanReplacement{{source, {Prompt(prompt.length() + 2), {}, {}, {}}}, MeanAxis::kSources};
      if (IsOverKeys(intervention.site.point)) intervention.edit = Zeroing{};
      break;
    case 4:
      intervention.edit = Addition{Vector(width), 0.7};
      if (IsOverKeys(intervention.site.point)) selector.scope = InterventionScope::kPrompt;
      break;
    case 5:
      intervention.edit = ProjectionRemoval{Vector(width)};
      if (IsOverKeys(intervention.site.point)) selector.scope = InterventionScope::kPrompt;
      break;
    default:
      intervention.edit = Zeroing{};
  }
  // What reads the stream may have a path to it from an earlier layer.
  const HookPoint point = intervention.site.point;
  const bool reads = point == HookPoint::kQInput || point == HookPoint::kKInput ||
                     point == HookPoint::kVInput || point == HookPoint::kMlpIn ||
                     point == HookPoint::kResidPost;
  if (reads && Int(2) == 0) {
    selector.dims.clear();
    const int layer = intervention.site.layer;
    PathPatch path{{HookPoint::kEmbed, 0}, std::nullopt, source};
    if (layer > 0 && Int(2) == 0) path.sender = {HookPoint::kMlpOut, Int(layer)};
    if (layer > 0 && Int(2) == 0) {
      path.sender = {HookPoint::kResult, Int(layer)};
      path.sender_head = Int(config_.head_count);
    }
    intervention.edit = path;
  }
  // Pattern and score means over queries of unlike visibility stay defined; pooled
  // means of scores would average minus infinities.
  if (intervention.site.point == HookPoint::kAttnScores &&
      !std::holds_alternative<Scaling>(intervention.edit)) {
    intervention.edit = Scaling{0.3};
  }
  return intervention;
}

InterventionSet RandomRequests::Interventions(const TokenizedPrompt& prompt, int count) {
  InterventionSet set;
  for (int i = 0; i < count; ++i) set.push_back(AnyIntervention(prompt));
  return set;
}

}  // namespace mechinterp::engine
