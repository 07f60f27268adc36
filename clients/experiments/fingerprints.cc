#include "clients/experiments/fingerprints.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace mechinterp {

Fingerprint CommonFingerprint(const ExperimentContext& context, const std::string& experiment,
                              const std::vector<PromptPair>& pairs) {
  const v1::ModelIdentity& model = context.model.identity();
  return {{"experiment", experiment},
          {"model", absl::StrCat(model.name(), " ", model.model_hash())},
          {"quantization", v1::Quantization_Name(model.quantization())},
          {"head quantization", v1::HeadQuantization_Name(model.head_quantization())},
          {"compute type", v1::ComputeType_Name(model.compute_type())},
          {"device", v1::Device_Name(model.device())},
          {"tokenizer", model.tokenizer_hash()},
          {"what is served", model.serving_hash()},
          {"prompts", absl::StrCat(pairs.size(), " pairs, ", DigestOf(pairs))},
          {"--seed", absl::StrCat(context.seed)}};
}

void AddOpenings(const Openings& openings, Fingerprint& fingerprint) {
  fingerprint["--refusal-opening"] = absl::StrJoin(openings.refusal, ", ");
  fingerprint["--compliance-opening"] = absl::StrJoin(openings.compliance, ", ");
}

}  // namespace mechinterp
