#include "clients/experiments/compare.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/experiments/compare_runs.h"
#include "clients/experiments/compare_summary.h"
#include "clients/experiments/fingerprints.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

absl::Status CheckSameShape(const v1::GetModelResponse& reference, const v1::GetModelResponse& other) {
  std::vector<std::string> differences;
  const auto compare = [&](const char* what, uint32_t ours, uint32_t theirs) {
    if (ours != theirs) differences.push_back(absl::StrCat(what, " ", ours, " against ", theirs));
  };
  compare("layers", reference.layer_count(), other.layer_count());
  compare("residual stream", reference.d_model(), other.d_model());
  compare("vocabulary", reference.vocabulary_size(), other.vocabulary_size());
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(reference.identity().name(), " and ", other.identity().name(),
                   " cannot be compared, their shapes differ: ", absl::StrJoin(differences, ", ")));
}

std::vector<std::string> KeysOf(const std::vector<ComparedPrompt>& prompts) {
  std::vector<std::string> keys;
  for (const ComparedPrompt& prompt : prompts) keys.push_back(prompt.id);
  return keys;
}

}  // namespace

absl::StatusOr<v1::CompareResults> RunCompare(const ExperimentContext& context,
                                              const CompareOptions& options) {
  if (options.prompts.empty()) return absl::InvalidArgumentError("there are no prompts");
  ABSTRACT_RETURN_IF_ERROR(CheckSameShape(context.model, options.other_model));
  const auto compare = [&](int i) {
    return ComparePrompt(context, options, options.prompts[static_cast<size_t>(i)]);
  };
  const PartTraits<v1::PromptComparison> traits = {
      [](const v1::PromptComparison& part) { return part.has_continuation() ? 4 : 2; },
      [&](int i, const v1::PromptComparison& part) {
        return part.prompt_id() == options.prompts[i].id && part.prompt() == options.prompts[i].text &&
               part.has_continuation() == (options.max_new_tokens > 0) &&
               std::all_of(part.positions().begin(), part.positions().end(),
                           [&](const v1::PositionComparison& position) {
                             return position.residual_relative_errors_size() ==
                                    static_cast<int>(context.model.layer_count());
                           });
      }};
  ABSTRACT_ASSIGN_OR_RETURN(
      const std::vector<v1::PromptComparison> prompts,
      RunParts<v1::PromptComparison>(context, "compare", KeysOf(options.prompts), compare, traits));

  v1::CompareResults results;
  *results.mutable_provenance() = ProvenanceOf(context, 0);
  *results.mutable_other_model() = options.other_model.identity();
  results.set_layer_count(context.model.layer_count());
  results.set_vocabulary_size(context.model.vocabulary_size());
  results.mutable_prompts()->Assign(prompts.begin(), prompts.end());
  SummarizeComparison(results);
  if (results.has_continuations()) {
    results.mutable_continuations()->set_max_new_tokens(static_cast<uint32_t>(options.max_new_tokens));
  }
  return results;
}

Fingerprint CompareFingerprint(const ExperimentContext& context, const CompareOptions& options) {
  std::vector<PromptPair> digested;  // For their hash: a prompt's parts in the fields of a pair.
  for (const ComparedPrompt& prompt : options.prompts) {
    digested.push_back({prompt.id, "", prompt.text, prompt.prompt.SerializeAsString()});
  }
  const v1::ModelIdentity& other = options.other_model.identity();
  Fingerprint fingerprint = CommonFingerprint(context, "compare", {});
  fingerprint["prompts"] = absl::StrCat(digested.size(), " prompts, ", DigestOf(digested));
  fingerprint["other model"] = absl::StrCat(other.name(), " ", other.model_hash());
  fingerprint["other quantization"] = v1::Quantization_Name(other.quantization());
  fingerprint["other device"] = v1::Device_Name(other.device());
  fingerprint["--max-new-tokens"] = absl::StrCat(options.max_new_tokens);
  return fingerprint;
}

}  // namespace mechinterp
