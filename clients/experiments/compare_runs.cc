#include "clients/experiments/compare_runs.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/experiments/comparison_measures.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

// One of the two servers.
struct Side {
  const char* name;
  ModelClient& client;
  const v1::GetModelResponse& model;

  absl::Status WithName(const absl::Status& status) const { return WithContext(status, name); }
};

Side ReferenceOf(const ExperimentContext& context) {
  return {"the reference server", *context.client, context.model};
}

Side OtherOf(const CompareOptions& options) {
  return {"the other server", *options.other_client, options.other_model};
}

absl::StatusOr<v1::TokenizeResponse> Tokenize(const Side& side, const v1::Prompt& prompt) {
  v1::TokenizeRequest request;
  *request.mutable_prompt() = prompt;
  absl::StatusOr<v1::TokenizeResponse> response = side.client.Tokenize(request);
  if (!response.ok()) return side.WithName(response.status());
  return response;
}

// The reference's tokens. The other server, if it can read such prompts, must
// read the same ones: equal ids would mean different texts otherwise.
absl::StatusOr<v1::TokenizeResponse> TokenizeForBoth(const Side& reference, const Side& other,
                                                     const v1::Prompt& prompt) {
  if (prompt.has_token_ids()) {
    v1::TokenizeResponse given;
    *given.mutable_ids() = prompt.token_ids().ids();
    return given;
  }
  ABSTRACT_ASSIGN_OR_RETURN(v1::TokenizeResponse tokens, Tokenize(reference, prompt));
  if (tokens.ids().empty()) return absl::InvalidArgumentError("the prompt has no tokens");
  const bool other_can_read =
      other.model.has_tokenizer() && (!prompt.has_chat() || other.model.has_chat_template());
  if (!other_can_read) return tokens;
  ABSTRACT_ASSIGN_OR_RETURN(const v1::TokenizeResponse others, Tokenize(other, prompt));
  const bool equal =
      std::equal(tokens.ids().begin(), tokens.ids().end(), others.ids().begin(), others.ids().end());
  if (equal) return tokens;
  return absl::FailedPreconditionError(absl::StrCat("the two servers read the prompt differently (",
                                                    tokens.ids_size(), " tokens against ", others.ids_size(),
                                                    "); they need the same tokenizer and chat template"));
}

// One activation of a run: [rows, width], row-major.
struct Rows {
  absl::Span<const float> values;
  size_t width;

  absl::Span<const float> row(size_t i) const { return values.subspan(i * width, width); }
};

// What a prompt's run gave, checked against the shapes that were announced.
struct Trace {
  CachedRun run;               // Owns the values.
  Rows logits;                 // [T, V]
  std::vector<Rows> residual;  // By layer [T, D].
};

absl::StatusOr<Rows> Find(const CachedRun& run, v1::HookPoint point, uint32_t layer, size_t rows,
                          size_t width) {
  for (const Activation& activation : run.activations) {
    const v1::HookSite& site = activation.info.site();
    if (site.point() != point || site.layer() != layer) continue;
    if (activation.values.size() == rows * width) return Rows{activation.values, width};
    return absl::DataLossError(absl::StrCat(activation.info.name(), ": ", activation.values.size(),
                                            " values, expected ", rows, " x ", width));
  }
  return absl::DataLossError(
      absl::StrCat("no activation of ", v1::HookPoint_Name(point), " in layer ", layer, " came"));
}

absl::StatusOr<Trace> RunAndCheck(const Side& side, const v1::RunWithCacheRequest& request) {
  Trace trace;
  ABSTRACT_ASSIGN_OR_RETURN(trace.run, side.client.RunWithCache(request));
  ABSTRACT_RETURN_IF_ERROR(CheckSameModel(side.model.identity(), trace.run.header.model()));
  const size_t rows = static_cast<size_t>(request.prompt().token_ids().ids_size());
  ABSTRACT_ASSIGN_OR_RETURN(trace.logits,
                            Find(trace.run, v1::HOOK_POINT_LOGITS, 0, rows, side.model.vocabulary_size()));
  for (uint32_t layer = 0; layer < side.model.layer_count(); ++layer) {
    ABSTRACT_ASSIGN_OR_RETURN(trace.residual.emplace_back(),
                              Find(trace.run, v1::HOOK_POINT_RESID_POST, layer, rows, side.model.d_model()));
  }
  for (const Activation& activation : trace.run.activations) {
    const auto is_finite = [](float value) { return std::isfinite(value); };
    if (!std::all_of(activation.values.begin(), activation.values.end(), is_finite)) {
      return absl::DataLossError(absl::StrCat(activation.info.name(), " has values that are not finite"));
    }
  }
  return trace;
}

absl::StatusOr<Trace> RunOn(const Side& side, const v1::RunWithCacheRequest& request) {
  absl::StatusOr<Trace> trace = RunAndCheck(side, request);
  if (!trace.ok()) return side.WithName(trace.status());
  return trace;
}

v1::RunWithCacheRequest MakeRequest(const v1::TokenizeResponse& tokens, uint32_t layer_count) {
  v1::RunWithCacheRequest request;
  *request.mutable_prompt()->mutable_token_ids()->mutable_ids() = tokens.ids();
  request.mutable_filter()->add_sites()->set_point(v1::HOOK_POINT_LOGITS);
  for (uint32_t layer = 0; layer < layer_count; ++layer) {
    v1::HookSite& site = *request.mutable_filter()->add_sites();
    site.set_point(v1::HOOK_POINT_RESID_POST);
    site.set_layer(layer);
  }
  return request;
}

void AddPositions(const v1::TokenizeResponse& tokens, const Trace& reference, const Trace& other,
                  v1::PromptComparison& comparison) {
  std::optional<NextTokenDistribution> our_last;
  std::optional<NextTokenDistribution> their_last;
  for (int i = 0; i < tokens.ids_size(); ++i) {
    const size_t row = static_cast<size_t>(i);
    const NextTokenDistribution ours(reference.logits.row(row));
    const NextTokenDistribution theirs(other.logits.row(row));
    v1::PositionComparison& position = *comparison.add_positions();
    position.set_token_id(tokens.ids(i));
    if (i < tokens.pieces_size()) position.set_piece(tokens.pieces(i));
    if (our_last.has_value()) {
      position.set_reference_log_probability(our_last->LogProbability(tokens.ids(i)));
      position.set_other_log_probability(their_last->LogProbability(tokens.ids(i)));
    }
    our_last = ours;
    their_last = theirs;
    position.set_kl_divergence(KlDivergence(ours, theirs));
    position.set_reference_top_token_id(ours.top_token_id());
    position.set_other_top_token_id(theirs.top_token_id());
    position.set_reference_top_log_probability(ours.LogProbability(ours.top_token_id()));
    position.set_other_top_log_probability(theirs.LogProbability(ours.top_token_id()));
    for (size_t layer = 0; layer < reference.residual.size(); ++layer) {
      position.add_residual_relative_errors(
          RelativeError(reference.residual[layer].row(row), other.residual[layer].row(row)));
    }
  }
}

absl::StatusOr<v1::Continuation> Continue(const Side& side, const v1::GenerateRequest& request) {
  const absl::StatusOr<Generation> generation = side.client.Generate(request);
  if (!generation.ok()) return side.WithName(generation.status());
  const absl::Status same = CheckSameModel(side.model.identity(), generation->header.model());
  if (!same.ok()) return side.WithName(same);
  return generation->summary.continuation();
}

absl::StatusOr<v1::ContinuationComparison> CompareContinuations(const Side& reference, const Side& other,
                                                                const v1::Prompt& prompt,
                                                                int max_new_tokens) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = prompt;
  request.mutable_sampling()->set_max_new_tokens(static_cast<uint32_t>(max_new_tokens));
  v1::ContinuationComparison comparison;
  ABSTRACT_ASSIGN_OR_RETURN(*comparison.mutable_reference(), Continue(reference, request));
  ABSTRACT_ASSIGN_OR_RETURN(*comparison.mutable_other(), Continue(other, request));
  const auto& ours = comparison.reference().token_ids();
  const auto& theirs = comparison.other().token_ids();
  const auto parting = std::mismatch(ours.begin(), ours.end(), theirs.begin(), theirs.end());
  comparison.set_matching_token_count(static_cast<uint32_t>(parting.first - ours.begin()));
  comparison.set_identical(parting.first == ours.end() && parting.second == theirs.end());
  return comparison;
}

absl::StatusOr<v1::PromptComparison> Compare(const Side& reference, const Side& other,
                                             const ComparedPrompt& prompt, int max_new_tokens) {
  ABSTRACT_ASSIGN_OR_RETURN(const v1::TokenizeResponse tokens,
                            TokenizeForBoth(reference, other, prompt.prompt));
  const v1::RunWithCacheRequest request = MakeRequest(tokens, reference.model.layer_count());
  v1::PromptComparison comparison;
  comparison.set_prompt_id(prompt.id);
  comparison.set_prompt(prompt.text);
  {
    ABSTRACT_ASSIGN_OR_RETURN(const Trace ours, RunOn(reference, request));
    ABSTRACT_ASSIGN_OR_RETURN(const Trace theirs, RunOn(other, request));
    AddPositions(tokens, ours, theirs, comparison);
    *comparison.mutable_reference_timings() = ours.run.summary.timings();
    *comparison.mutable_other_timings() = theirs.run.summary.timings();
  }  // Frees the traces before the slow part.
  if (max_new_tokens > 0) {
    ABSTRACT_ASSIGN_OR_RETURN(*comparison.mutable_continuation(),
                              CompareContinuations(reference, other, request.prompt(), max_new_tokens));
  }
  return comparison;
}

}  // namespace

absl::StatusOr<v1::PromptComparison> ComparePrompt(const ExperimentContext& context,
                                                   const CompareOptions& options,
                                                   const ComparedPrompt& prompt) {
  absl::StatusOr<v1::PromptComparison> comparison =
      Compare(ReferenceOf(context), OtherOf(options), prompt, options.max_new_tokens);
  if (!comparison.ok()) return WithContext(comparison.status(), prompt.id);
  return comparison;
}

}  // namespace mechinterp
