#include "clients/experiments/direction_probe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/experiments/direction_vectors.h"
#include "services/common/status_macros.h"
#include "services/common/tensor_bytes.h"

namespace mechinterp {
namespace {

// Log-odds of a probability that double precision does not tell from 0 or 1.
constexpr double kMostLogOdds = 700;
// What the edits of a request may take, in the server too: of 8B, some 30 directions in all layers.
constexpr size_t kEditBytes = size_t{64} << 20;

// Of all layers, or of one.
v1::ActivationFilter StreamFilter(std::optional<int> layer = {}) {
  v1::ActivationFilter filter;
  if (layer) {
    v1::HookSite& site = *filter.add_sites();
    site.set_point(v1::HOOK_POINT_RESID_PRE);
    site.set_layer(static_cast<uint32_t>(*layer));
  } else {
    filter.add_name_patterns("blocks.*.hook_resid_pre");
  }
  filter.mutable_positions()->add_named(v1::NAMED_POSITION_LAST_INSTRUCTION);
  filter.mutable_positions()->add_named(v1::NAMED_POSITION_TEMPLATE_TAIL);
  return filter;
}

void SetTensor(absl::Span<const float> values, v1::DirectionPart& part) {
  part.mutable_tensor()->resize(values.size() * sizeof(float));
  EncodeValues(values, v1::DATA_TYPE_FLOAT32, part.mutable_tensor()->data());
}

// Puts the layers' tensors together, of each its first [positions, width].
absl::StatusOr<StreamVectors> Join(absl::Span<const Activation> activations, int layers, int positions_axis,
                                   size_t width) {
  if (static_cast<int>(activations.size()) != layers) {
    return absl::DataLossError(
        absl::StrCat("the stream of ", activations.size(), " layers came, of ", layers));
  }
  StreamVectors stream;
  stream.layer_count = layers;
  stream.width = width;
  stream.position_count = static_cast<int>(activations.front().info.shape(positions_axis));
  const size_t count = static_cast<size_t>(stream.position_count) * width;
  for (const Activation& activation : activations) {
    if (activation.values.size() < count || count == 0) {
      return absl::DataLossError(
          absl::StrCat(activation.info.name(), " has another size than was asked for"));
    }
    stream.values.insert(stream.values.end(), activation.values.begin(),
                         activation.values.begin() + static_cast<std::ptrdiff_t>(count));
  }
  return stream;
}

absl::Status OtherTail() {
  return absl::DataLossError("the chat template's tail has another length than in other prompts");
}

// How many of the first sets go into one request.
size_t SetsInARequest(absl::Span<const EditSet> sets, size_t layers) {
  size_t bytes = 0, count = 0;
  for (const EditSet& set : sets) {
    for (const v1::Intervention& edit : set) {
      const size_t sites = edit.has_sites() ? layers * static_cast<size_t>(edit.sites().points_size()) : 1;
      bytes += sites * edit.ByteSizeLong();
    }
    if (count > 0 && bytes > kEditBytes) break;
    ++count;
  }
  return count;
}

}  // namespace

absl::Status DirectionProbe::CheckModel(const v1::ModelIdentity& model) const {
  return CheckSameModel(context_.model.identity(), model);
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::Means(absl::Span<const v1::Prompt> prompts) const {
  constexpr size_t kPromptsInARequest = 1000;
  StreamMean mean;
  int positions = 0;
  for (size_t first = 0; first < prompts.size(); first += kPromptsInARequest) {
    const auto some = prompts.subspan(first, kPromptsInARequest);
    v1::RunMeanActivationsRequest request;
    request.mutable_prompts()->Assign(some.begin(), some.end());
    *request.mutable_filter() = StreamFilter();
    ABSTRACT_ASSIGN_OR_RETURN(const MeanActivations means, context_.client->RunMeanActivations(request));
    ABSTRACT_RETURN_IF_ERROR(CheckModel(means.header.model()));
    ABSTRACT_ASSIGN_OR_RETURN(const StreamVectors stream,
                              Join(means.activations, layer_count(), /*positions_axis=*/1, width()));
    if (first == 0) positions = stream.position_count;
    if (stream.position_count != positions) return OtherTail();
    mean.Add(stream, some.size());
  }
  const StreamVectors stream = mean.Mean();
  v1::DirectionPart part;
  part.add_values(stream.position_count);
  SetTensor(stream.values, part);
  return part;
}

absl::StatusOr<StreamVectors> DirectionProbe::Stream(const v1::Prompt& prompt,
                                                     std::optional<int> layer) const {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = prompt;
  *request.mutable_filter() = StreamFilter(layer);
  ABSTRACT_ASSIGN_OR_RETURN(const CachedRun run, context_.client->RunWithCache(request));
  ABSTRACT_RETURN_IF_ERROR(CheckModel(run.header.model()));
  return Join(run.activations, layer ? 1 : layer_count(), /*positions_axis=*/0, width());
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::Projections(const v1::Prompt& prompt,
                                                              const StreamVectors& units) const {
  ABSTRACT_ASSIGN_OR_RETURN(const StreamVectors stream, Stream(prompt));
  if (stream.position_count != units.position_count) {
    return OtherTail();
  }
  v1::DirectionPart part;
  for (int layer = 0; layer < stream.layer_count; ++layer) {
    for (int position = 0; position < stream.position_count; ++position) {
      part.add_values(Dot(stream.at(layer, position), units.at(layer, position)));
    }
  }
  return part;
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::Difference(const v1::Prompt& prompt,
                                                             const v1::Prompt& other,
                                                             const StreamSite& site) const {
  ABSTRACT_ASSIGN_OR_RETURN(const StreamVectors stream, Stream(prompt, site.layer));
  ABSTRACT_ASSIGN_OR_RETURN(const StreamVectors other_stream, Stream(other, site.layer));
  if (std::min(stream.position_count, other_stream.position_count) <= site.position) {
    return OtherTail();
  }
  v1::DirectionPart part;
  SetTensor(mechinterp::Difference(stream.at(0, site.position), other_stream.at(0, site.position)), part);
  return part;
}

absl::StatusOr<std::vector<float>> DirectionProbe::Gradient(const v1::Prompt& prompt,
                                                            const v1::Prompt& source,
                                                            v1::AttributionMethod method,
                                                            const StreamSite& site) const {
  v1::RunAttributionRequest request;
  v1::AttributionPair& pair = *request.add_pairs();
  *pair.mutable_prompt() = prompt;
  *pair.mutable_source_prompt() = source;
  request.mutable_metrics()->mutable_refusal_token_ids()->Add(tokens_.refusal.begin(), tokens_.refusal.end());
  request.set_metric(v1::ATTRIBUTION_METRIC_REFUSAL_LOG_ODDS);
  request.set_method(method);
  request.set_return_gradients(true);
  *request.mutable_filter() = StreamFilter(site.layer);
  ABSTRACT_ASSIGN_OR_RETURN(const AttributionRun run, context_.client->RunAttribution(request));
  ABSTRACT_RETURN_IF_ERROR(CheckModel(run.header.model()));
  if (run.pairs.size() != 1) return absl::DataLossError("the gradients of one pair did not come");
  ABSTRACT_ASSIGN_OR_RETURN(StreamVectors stream,
                            Join(run.pairs[0].tensors, 1, /*positions_axis=*/0, width()));
  if (stream.position_count <= site.position) return OtherTail();
  const absl::Span<const float> gradient = stream.at(0, site.position);
  return std::vector<float>(gradient.begin(), gradient.end());
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::Gradients(const v1::Prompt& prompt, const v1::Prompt& other,
                                                            const StreamSite& site) const {
  std::vector<float> gradients;
  const auto add = [&](const v1::Prompt& of, const v1::Prompt& source,
                       v1::AttributionMethod method) -> absl::Status {
    ABSTRACT_ASSIGN_OR_RETURN(const std::vector<float> gradient, Gradient(of, source, method, site));
    gradients.insert(gradients.end(), gradient.begin(), gradient.end());
    return absl::OkStatus();
  };
  ABSTRACT_RETURN_IF_ERROR(add(prompt, other, v1::ATTRIBUTION_METHOD_GRADIENT));
  ABSTRACT_RETURN_IF_ERROR(add(other, prompt, v1::ATTRIBUTION_METHOD_GRADIENT));
  const absl::Status status = add(prompt, other, v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS);
  if (!status.ok() && !absl::IsInvalidArgument(status)) return status;  // that: lengths differ
  v1::DirectionPart part;
  SetTensor(gradients, part);
  return part;
}

absl::StatusOr<double> DirectionProbe::LogOdds(const v1::Prompt& prompt) const {
  v1::GenerateRequest request;
  *request.mutable_prompt() = prompt;
  request.mutable_sampling()->set_max_new_tokens(1);
  *request.mutable_metrics() = MetricOptionsOf(tokens_);
  ABSTRACT_ASSIGN_OR_RETURN(const Generation generation, context_.client->Generate(request));
  ABSTRACT_RETURN_IF_ERROR(CheckModel(generation.header.model()));
  return generation.summary.metrics().refusal_log_odds();
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::Score(const v1::Prompt& prompt,
                                                        absl::Span<const EditSet> sets) const {
  v1::DirectionPart part;
  const auto add = [&part](double log_odds) {
    part.add_values(std::clamp(log_odds, -kMostLogOdds, kMostLogOdds));
  };
  if (sets.empty()) {  // which no sweep takes
    ABSTRACT_ASSIGN_OR_RETURN(const double log_odds, LogOdds(prompt));
    add(log_odds);
  }
  for (size_t first = 0; first < sets.size();) {
    const size_t count = SetsInARequest(sets.subspan(first), context_.model.layer_count());
    v1::RunPatchSweepRequest request;
    *request.mutable_prompt() = prompt;
    *request.mutable_metrics() = MetricOptionsOf(tokens_);
    for (const EditSet& set : sets.subspan(first, count)) {
      request.add_sets()->mutable_interventions()->Assign(set.begin(), set.end());
    }
    ABSTRACT_ASSIGN_OR_RETURN(const Sweep sweep, context_.client->RunPatchSweep(request));
    ABSTRACT_RETURN_IF_ERROR(CheckModel(sweep.header.model()));
    if (first == 0) add(sweep.header.clean().refusal_log_odds());
    for (const v1::SweepResult& result : sweep.results) {
      add(result.metrics().refusal_log_odds());
      part.add_values(result.metrics().kl_from_clean());
    }
    first += count;
  }
  return part;
}

absl::StatusOr<v1::DirectionPart> DirectionProbe::CrossEntropies(absl::Span<const v1::TextToScore> texts,
                                                                 const EditSet& edits) const {
  constexpr size_t kTextsInARequest = 16;  // each of which the edits are compiled for
  v1::DirectionPart part;
  for (size_t first = 0; first < texts.size(); first += kTextsInARequest) {
    const auto some = texts.subspan(first, kTextsInARequest);
    v1::ScoreTextsRequest request;
    request.mutable_texts()->Assign(some.begin(), some.end());
    request.mutable_interventions()->Assign(edits.begin(), edits.end());
    ABSTRACT_ASSIGN_OR_RETURN(const TextScores scores, context_.client->ScoreTexts(request));
    ABSTRACT_RETURN_IF_ERROR(CheckModel(scores.header.model()));
    for (const v1::TextScore& score : scores.scores) part.add_values(score.cross_entropy());
  }
  return part;
}

std::vector<float> TensorOf(const v1::DirectionPart& part) {
  std::vector<float> values(part.tensor().size() / sizeof(float));
  DecodeValues(part.tensor(), v1::DATA_TYPE_FLOAT32, values.data());
  return values;
}

StreamVectors StreamOf(const v1::DirectionPart& part, int layers, size_t width) {
  return {layers, static_cast<int>(part.values(0)), width, TensorOf(part)};
}

bool IsStream(const v1::DirectionPart& part, int layers, size_t width) {
  constexpr double kMostPositions = 1 << 20;
  if (part.values_size() != 1 || !(part.values(0) >= 1 && part.values(0) <= kMostPositions)) return false;
  return HasTensor(part, static_cast<size_t>(layers) * static_cast<size_t>(part.values(0)) * width);
}

bool HasValues(const v1::DirectionPart& part, size_t count) {
  return static_cast<size_t>(part.values_size()) == count &&
         std::all_of(part.values().begin(), part.values().end(), [](double v) { return std::isfinite(v); });
}

bool HasTensor(const v1::DirectionPart& part, size_t count) {
  if (part.tensor().size() != count * sizeof(float)) return false;
  const std::vector<float> values = TensorOf(part);
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace mechinterp
