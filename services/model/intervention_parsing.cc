#include "services/model/intervention_parsing.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/tensor_proto.h"
#include "services/model/request_limits.h"

namespace mechinterp {
namespace {

// Saturates at INT_MAX, which later range checks reject.
int ToInt(uint32_t value) { return static_cast<int>(std::min<uint32_t>(value, INT32_MAX)); }

std::vector<int> ToInts(const google::protobuf::RepeatedField<uint32_t>& values) {
  std::vector<int> result;
  for (uint32_t value : values) result.push_back(ToInt(value));
  return result;
}

engine::HookPoint ParsePoint(v1::HookPoint point, const FieldViolations& at) {
  const std::optional<engine::HookPoint> known = engine::PointOfWireNumber(point);
  if (!known) at.Add(absl::StrCat("hook point ", static_cast<int>(point), " is not known"));
  return known.value_or(engine::HookPoint::kResidPre);
}

engine::HookSite ParseSite(const v1::HookSite& site, const FieldViolations& at) {
  const engine::HookPoint point = ParsePoint(site.point(), at.At("point"));
  return {point, ToInt(site.layer())};  // checked by the compiler
}

engine::Selector ParseSelector(const v1::Selector& selector, const FieldViolations& at) {
  engine::Selector result;
  result.heads = ToInts(selector.heads());
  result.dims = ToInts(selector.dims());
  result.positions = ParsePositions(selector.positions(), at.At("positions"));
  switch (selector.scope()) {
    case v1::INTERVENTION_SCOPE_UNSPECIFIED:
      break;
    case v1::INTERVENTION_SCOPE_PROMPT:
      result.scope = engine::InterventionScope::kPrompt;
      break;
    case v1::INTERVENTION_SCOPE_GENERATED:
      result.scope = engine::InterventionScope::kGenerated;
      break;
    case v1::INTERVENTION_SCOPE_PROMPT_AND_GENERATED:
      result.scope = engine::InterventionScope::kPromptAndGenerated;
      break;
    default:
      at.At("scope").Add("is not a known scope");
  }
  return result;
}

engine::HostTensor ParseTensor(const v1::Tensor& tensor, const FieldViolations& at) {
  absl::StatusOr<std::vector<float>> values = FloatValues(tensor);
  if (!values.ok()) {
    at.Add(std::string(values.status().message()));
    return {};
  }
  return {{tensor.shape().begin(), tensor.shape().end()}, *std::move(values)};
}

engine::ActivationSource ParseSource(RequestParser& parser, const v1::ActivationSource& source,
                                     const FieldViolations& at) {
  engine::ActivationSource result;
  result.origin = std::shared_ptr<const engine::RecordedRun>();  // until it is read
  switch (source.source_case()) {
    case v1::ActivationSource::kTensor:
      result.origin = ParseTensor(source.tensor(), at.At("tensor"));
      break;
    case v1::ActivationSource::kStored: {
      absl::StatusOr<ActivationStore::Entry> entry = parser.Stored(source.stored().handle());
      if (entry.ok()) {
        result.origin = entry->run;
      } else {
        parser.Fail(entry.status());
      }
      if (source.stored().has_site())
        result.site = ParseSite(source.stored().site(), at.At("stored").At("site"));
      break;
    }
    case v1::ActivationSource::kPrompt:
      result.origin = parser.PromptToRun(source.prompt().prompt(), 0, at.At("prompt").At("prompt"));
      break;
    case v1::ActivationSource::SOURCE_NOT_SET:
      at.Add("must have a tensor, stored or prompt");
      break;
  }
  if (source.has_positions()) result.positions = ParsePositions(source.positions(), at.At("positions"));
  switch (source.alignment()) {
    case v1::POSITION_ALIGNMENT_UNSPECIFIED:
      break;
    case v1::POSITION_ALIGNMENT_START:
      result.alignment = engine::PositionAlignment::kStart;
      break;
    case v1::POSITION_ALIGNMENT_END:
      result.alignment = engine::PositionAlignment::kEnd;
      break;
    default:
      at.At("alignment").Add("is not a known alignment");
  }
  return result;
}

std::vector<engine::ActivationSource> ParseSources(
    RequestParser& parser, const google::protobuf::RepeatedPtrField<v1::ActivationSource>& sources,
    const FieldViolations& at) {
  std::vector<engine::ActivationSource> result;
  for (int i = 0; i < sources.size(); ++i)
    result.push_back(ParseSource(parser, sources[i], at.At("sources", i)));
  return result;
}

engine::Edit ParseEdit(RequestParser& parser, const v1::Intervention& intervention,
                       const FieldViolations& at) {
  switch (intervention.edit_case()) {
    case v1::Intervention::kReplacement:
      return engine::Replacement{
          ParseSource(parser, intervention.replacement().source(), at.At("replacement").At("source"))};
    case v1::Intervention::kZeroing:
      return engine::Zeroing{};
    case v1::Intervention::kMeanReplacement: {
      const v1::MeanReplacement& mean = intervention.mean_replacement();
      const FieldViolations at_mean = at.At("mean_replacement");
      if (!v1::MeanAxis_IsValid(mean.axis())) at_mean.At("axis").Add("is not a known axis");
      return engine::MeanReplacement{ParseSources(parser, mean.sources(), at_mean),
                                     mean.axis() == v1::MEAN_AXIS_SOURCES
                                         ? engine::MeanAxis::kSources
                                         : engine::MeanAxis::kSourcesAndPositions};
    }
    case v1::Intervention::kResampling:
      return engine::Resampling{
          ParseSources(parser, intervention.resampling().sources(), at.At("resampling")),
          intervention.resampling().seed()};
    case v1::Intervention::kAddition:
      return engine::Addition{ParseTensor(intervention.addition().vector(), at.At("addition").At("vector")),
                              intervention.addition().has_scale() ? intervention.addition().scale() : 1.0};
    case v1::Intervention::kScaling:
      return engine::Scaling{intervention.scaling().factor()};
    case v1::Intervention::kProjectionRemoval:
      return engine::ProjectionRemoval{ParseTensor(intervention.projection_removal().direction(),
                                                   at.At("projection_removal").At("direction"))};
    case v1::Intervention::kNoiseAddition:
      return engine::NoiseAddition{intervention.noise_addition().standard_deviation(),
                                   intervention.noise_addition().seed()};
    case v1::Intervention::kPathPatch: {
      const v1::PathPatch& path = intervention.path_patch();
      const FieldViolations at_path = at.At("path_patch");
      if (!path.has_sender()) at_path.At("sender").Add("is missing");
      engine::PathPatch parsed;
      if (path.has_sender()) parsed.sender = ParseSite(path.sender(), at_path.At("sender"));
      if (path.has_sender_head()) parsed.sender_head = static_cast<int>(path.sender_head());
      parsed.source = ParseSource(parser, path.source(), at_path.At("source"));
      return parsed;
    }
    case v1::Intervention::EDIT_NOT_SET:
      break;
  }
  at.Add("must have an edit (replacement, zeroing, ...)");
  return engine::Zeroing{};
}

// The sites of a group in the order of the pass; none where something is wrong with it.
std::vector<engine::HookSite> ParseSiteGroup(const v1::SiteGroup& group, const engine::ModelConfig& config,
                                             const FieldViolations& at) {
  if (group.points().empty()) at.At("points").Add("must not be empty");
  std::set<engine::HookPoint> points;
  for (int i = 0; i < group.points_size(); ++i) {
    const FieldViolations at_point = at.At("points", i);
    points.insert(ParsePoint(group.points(i), at_point));
    if (!group.layers().empty() && at_point.empty() && !engine::HasLayer(*points.rbegin())) {
      at_point.Add("has no layer; layers must be empty");
    }
  }
  std::set<int> layers;
  for (int i = 0; i < group.layers_size(); ++i) {
    const int layer = ToInt(group.layers(i));
    layers.insert(layer);
    if (layer >= config.layer_count()) {
      at.At("layers", i).Add(absl::StrCat(layer, " is not in [0, ", config.layer_count(), ")"));
    }
  }
  std::vector<engine::HookSite> sites;
  for (const engine::HookSite& site : engine::AllSites(config)) {
    if (points.count(site.point) > 0 && (layers.empty() || layers.count(site.layer) > 0)) {
      sites.push_back(site);
    }
  }
  return sites;
}

// Where an edit is to be made. At least one site, so that the rest of it is looked at too.
std::vector<engine::HookSite> ParseSites(const v1::Intervention& intervention,
                                         const engine::ModelConfig& config, const FieldViolations& at) {
  if (intervention.has_site() && intervention.has_sites()) {
    at.At("sites").Add("must be unset where there is a site");
  } else if (intervention.has_site()) {
    return {ParseSite(intervention.site(), at.At("site"))};
  } else if (!intervention.has_sites()) {
    at.At("site").Add("is missing");
  } else if (std::vector<engine::HookSite> sites =
                 ParseSiteGroup(intervention.sites(), config, at.At("sites"));
             !sites.empty()) {
    return sites;
  }
  return {engine::HookSite{}};
}

// Of all its lists.
size_t SelectedCount(const engine::Selector& selector) {
  const engine::PositionSelector& positions = selector.positions;
  return selector.heads.size() + selector.dims.size() + positions.indices.size() + positions.ranges.size() +
         positions.named.size();
}

engine::Intervention ParseIntervention(RequestParser& parser, const v1::Intervention& intervention,
                                       const FieldViolations& at) {
  engine::Intervention result;
  result.selector = ParseSelector(intervention.selector(), at.At("selector"));
  result.edit = ParseEdit(parser, intervention, at);
  return result;
}

}  // namespace

engine::InterventionSet ParseInterventions(
    RequestParser& parser, const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const FieldViolations& at) {
  engine::InterventionSet result;
  for (int i = 0; i < interventions.size(); ++i) {
    const FieldViolations at_intervention = at.At("interventions", i);
    const std::vector<engine::HookSite> sites =
        ParseSites(interventions[i], parser.model().config(), at_intervention);
    engine::Intervention parsed = ParseIntervention(parser, interventions[i], at_intervention);
    parsed.request_index = i;
    // As many as one edit at a single site may list.
    constexpr size_t kMostSelected = 4'000'000;
    if (SelectedCount(parsed.selector) > kMostSelected / sites.size()) {
      at_intervention.At("selector")
          .Add(absl::StrCat("lists ", SelectedCount(parsed.selector), " entries at each of ", sites.size(),
                            " sites, of which there may be ", kMostSelected, " in all"));
      return {};
    }
    for (const engine::HookSite& site : sites) {
      parsed.site = site;
      result.push_back(parsed);
    }
    if (result.size() > kMostInterventions) {
      at_intervention.Add(absl::StrCat("with those before it makes ", result.size(),
                                       " edits of one run, of which there may be ", kMostInterventions));
      return {};
    }
  }
  return result;
}

engine::PositionSelector ParsePositions(const v1::PositionSelector& positions, const FieldViolations& at) {
  engine::PositionSelector result;
  result.indices.assign(positions.indices().begin(), positions.indices().end());
  for (const v1::PositionRange& range : positions.ranges()) {
    result.ranges.push_back(
        {range.start(), range.has_end() ? std::optional<int>(range.end()) : std::nullopt});
  }
  for (int i = 0; i < positions.named_size(); ++i) {
    switch (positions.named(i)) {
      case v1::NAMED_POSITION_LAST:
        result.named.push_back(engine::NamedPosition::kLast);
        break;
      case v1::NAMED_POSITION_LAST_INSTRUCTION:
        result.named.push_back(engine::NamedPosition::kLastInstruction);
        break;
      case v1::NAMED_POSITION_TEMPLATE_TAIL:
        result.named.push_back(engine::NamedPosition::kTemplateTail);
        break;
      default:
        at.At("named", i).Add("is not a known position");
    }
  }
  return result;
}

// A site that several patterns match is recorded, and counted, once. The first of each stays
// where it is: faults are told by its index.
void RemoveRepeated(std::vector<engine::HookSite>& sites) {
  std::set<engine::HookSite> seen;
  std::erase_if(sites, [&](const engine::HookSite& site) { return !seen.insert(site).second; });
}

engine::CaptureRequest ParseFilter(RequestParser& parser, const v1::ActivationFilter& filter,
                                   const FieldViolations& at) {
  engine::CaptureRequest capture;
  if (filter.name_patterns().empty() && filter.sites().empty()) {
    at.Add("must name at least one activation in name_patterns or sites");
  }
  for (int i = 0; i < filter.sites_size(); ++i)
    capture.sites.push_back(ParseSite(filter.sites(i), at.At("sites", i)));
  for (int i = 0; i < filter.name_patterns_size(); ++i) {
    const std::vector<engine::HookSite> sites =
        engine::MatchingSites(filter.name_patterns(i), parser.model().config());
    if (sites.empty()) {
      at.At("name_patterns", i)
          .Add(absl::StrCat("'", filter.name_patterns(i),
                            "' matches no hook point; ListHookPoints names them all"));
    }
    capture.sites.insert(capture.sites.end(), sites.begin(), sites.end());
  }
  RemoveRepeated(capture.sites);
  capture.positions = ParsePositions(filter.positions(), at.At("positions"));
  return capture;
}

engine::SweepGrid ParseGrid(RequestParser& parser, const v1::SweepGrid& grid, const FieldViolations& at) {
  engine::SweepGrid result;
  if (grid.prototype().has_sites()) {
    at.At("prototype").At("sites").Add("must be unset: the grid has points and layers of its own");
  }
  result.prototype = ParseIntervention(parser, grid.prototype(), at.At("prototype"));
  for (int i = 0; i < grid.points_size(); ++i) {
    result.points.push_back(ParsePoint(grid.points(i), at.At("points", i)));
  }
  result.layers = ToInts(grid.layers());
  for (int i = 0; i < grid.axes_size(); ++i) {
    switch (grid.axes(i)) {
      case v1::SWEEP_AXIS_POSITION:
        result.split_positions = true;
        break;
      case v1::SWEEP_AXIS_HEAD:
        result.split_heads = true;
        break;
      case v1::SWEEP_AXIS_DIM_GROUP:
        if (grid.dims_per_group() == 0)
          at.At("dims_per_group").Add("must be at least 1 with SWEEP_AXIS_DIM_GROUP");
        result.dims_per_group = ToInt(grid.dims_per_group());
        break;
      default:
        at.At("axes", i).Add("is not a known axis");
    }
  }
  return result;
}

}  // namespace mechinterp
