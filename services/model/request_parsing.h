#ifndef SERVICES_MODEL_REQUEST_PARSING_H_
#define SERVICES_MODEL_REQUEST_PARSING_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/model.h"
#include "services/engine/operations/logit_metrics.h"
#include "services/engine/operations/sampler.h"
#include "services/model/activation_store.h"

namespace mechinterp {

// From protobuf to the engine's types; interventions in intervention_parsing.h. Here
// proto types stop. A parser collects everything that is wrong with one request, by field
// path; what cannot be expressed as a field violation (no tokenizer, an unknown handle)
// is kept as a status of its own. Make one for each request; not thread-safe.
class RequestParser {
 public:
  // `owner`: whose stored runs the request may read (ActivationStore).
  RequestParser(const engine::Model& model, ActivationStore& store, std::string owner = "")
      : model_(model), store_(store), owner_(std::move(owner)) {}

  // What is wrong so far: the first status of its own, else INVALID_ARGUMENT with
  // all violations, else OK.
  absl::Status status() const;
  FieldViolations violations() { return violations_.root(); }
  // Keeps the first status of its own.
  void Fail(const absl::Status& status);

  const engine::Model& model() const { return model_; }
  absl::StatusOr<ActivationStore::Entry> Stored(const std::string& handle) const {
    return store_.Get(owner_, handle);
  }

  engine::TokenizedPrompt Prompt(const v1::Prompt& prompt, const FieldViolations& at,
                                 bool omit_begin_of_text = false);
  // A prompt of the context's length at most, with `reserved` tokens to come.
  engine::TokenizedPrompt PromptToRun(const v1::Prompt& prompt, int reserved, const FieldViolations& at);
  // Adds to `at` where a token is past the model's embedding, as special ones of a text can be.
  void CheckKnown(const std::vector<engine::TokenId>& ids, const FieldViolations& at) const;
  engine::SamplingOptions Sampling(const v1::SamplingOptions& sampling, const FieldViolations& at);
  engine::MetricOptions Metrics(const v1::MetricOptions& metrics, const FieldViolations& at);
  // Where openings mean nothing.
  static void RefuseOpenings(const v1::MetricOptions& metrics, const FieldViolations& at);
  // Has the compiler check and compile a prompt's interventions and captures; nothing for
  // a prompt that could not be read.
  static void Compile(const engine::TokenizedPrompt& prompt, const engine::InterventionSet& interventions,
                      const engine::CaptureRequest& capture, engine::PlanCompiler& compiler,
                      const FieldViolations& at);
  std::vector<engine::TokenId> TokenIds(const google::protobuf::RepeatedField<uint32_t>& ids,
                                        const FieldViolations& at, absl::string_view field);

 private:
  engine::TokenizedPrompt ChatPrompt(const v1::ChatPrompt& chat, const FieldViolations& at);
  engine::TokenizedPrompt TextPrompt(const std::string& text, bool omit_special_tokens);

  const engine::Model& model_;
  ActivationStore& store_;
  const std::string owner_;
  Violations violations_;
  absl::Status failure_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_REQUEST_PARSING_H_
