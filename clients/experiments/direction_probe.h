#ifndef CLIENTS_EXPERIMENTS_DIRECTION_PROBE_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_PROBE_H_

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"
#include "clients/experiments/stream_vectors.h"
#include "mechinterp/v1/direction.pb.h"

namespace mechinterp {

// Edits of one run, in a sweep of many.
using EditSet = std::vector<v1::Intervention>;

// What the direction experiment asks of the server, a part for the journal each time. Calls block;
// thread-safe. `context` and `tokens` must outlive it. Answers of another model than the context's are
// FailedPrecondition.
class DirectionProbe {
 public:
  DirectionProbe(const ExperimentContext& context, const MetricTokens& tokens)
      : context_(context), tokens_(tokens) {}

  // Means over these prompts. Values: the positions; tensor: [layers, positions, d_model].
  absl::StatusOr<v1::DirectionPart> Means(absl::Span<const v1::Prompt> prompts) const;
  // Values: the dot products of a prompt's own stream with each of `units`, [layers, positions].
  absl::StatusOr<v1::DirectionPart> Projections(const v1::Prompt& prompt, const StreamVectors& units) const;
  // Tensor: [d_model], the first prompt's stream less the second's at one site.
  absl::StatusOr<v1::DirectionPart> Difference(const v1::Prompt& prompt, const v1::Prompt& other,
                                               const StreamSite& site) const;
  // Tensor: [2 or 3, d_model], gradients of the refusal log-odds at one site: in each prompt's run, and,
  // where the two are of one length, the mean along the way from the one's embeddings to the other's
  // (integrated gradients). What is saturated at the ends of that way is not on it.
  absl::StatusOr<v1::DirectionPart> Gradients(const v1::Prompt& prompt, const v1::Prompt& other,
                                              const StreamSite& site) const;
  // Values: the refusal log-odds of the prompt's run without edits, and then, set by set, the
  // log-odds with them and the KL from the run without.
  absl::StatusOr<v1::DirectionPart> Score(const v1::Prompt& prompt, absl::Span<const EditSet> sets) const;
  // Values: mean cross-entropy of each text with these edits, in nats a token.
  absl::StatusOr<v1::DirectionPart> CrossEntropies(absl::Span<const v1::TextToScore> texts,
                                                   const EditSet& edits) const;

  int layer_count() const { return static_cast<int>(context_.model.layer_count()); }
  size_t width() const { return context_.model.d_model(); }

 private:
  absl::StatusOr<std::vector<float>> Gradient(const v1::Prompt& prompt, const v1::Prompt& source,
                                              v1::AttributionMethod method, const StreamSite& site) const;
  absl::StatusOr<double> LogOdds(const v1::Prompt& prompt) const;
  // Of all layers, or with `layer` of that alone, as the first of one.
  absl::StatusOr<StreamVectors> Stream(const v1::Prompt& prompt, std::optional<int> layer = {}) const;
  absl::Status CheckModel(const v1::ModelIdentity& model) const;

  const ExperimentContext& context_;
  const MetricTokens& tokens_;
};

std::vector<float> TensorOf(const v1::DirectionPart& part);
// Of Means' part.
StreamVectors StreamOf(const v1::DirectionPart& part, int layers, size_t width);

// Whether a part has the form that is made, all of it finite.
bool IsStream(const v1::DirectionPart& part, int layers, size_t width);
bool HasValues(const v1::DirectionPart& part, size_t count);
bool HasTensor(const v1::DirectionPart& part, size_t count);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_PROBE_H_
