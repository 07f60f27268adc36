#ifndef SERVICES_MODEL_REQUEST_PARSING_H_
#define SERVICES_MODEL_REQUEST_PARSING_H_

#include <vector>

#include "absl/status/statusor.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/interventions/plan_compiler.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/engine/model.h"
#include "services/engine/operations/logit_metrics.h"
#include "services/engine/operations/sampler.h"
#include "services/model/activation_store.h"

namespace mechinterp {

// From protobuf to the engine's types. Here proto types stop. A parser collects
// everything that is wrong with one request, by field path; what cannot be
// expressed as a field violation (no tokenizer, an unknown handle) is kept as a
// status of its own. Make one for each request; not thread-safe.
class RequestParser {
 public:
  RequestParser(const engine::Model& model, ActivationStore& store) : model_(model), store_(store) {}

  // What is wrong so far: the first status of its own, else INVALID_ARGUMENT with
  // all violations, else OK.
  absl::Status status() const;
  FieldViolations violations() { return violations_.root(); }

  engine::TokenizedPrompt Prompt(const v1::Prompt& prompt, const FieldViolations& at,
                                 bool omit_begin_of_text = false);
  // A prompt of the context's length at most, with `reserved` tokens to come.
  engine::TokenizedPrompt PromptToRun(const v1::Prompt& prompt, int reserved, const FieldViolations& at);
  engine::SamplingOptions Sampling(const v1::SamplingOptions& sampling, const FieldViolations& at);
  engine::MetricOptions Metrics(const v1::MetricOptions& metrics, const FieldViolations& at);
  engine::CaptureRequest Filter(const v1::ActivationFilter& filter, const FieldViolations& at);
  engine::InterventionSet Interventions(
      const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions, const FieldViolations& at);
  engine::SweepGrid Grid(const v1::SweepGrid& grid, const FieldViolations& at);
  std::vector<engine::TokenId> TokenIds(const google::protobuf::RepeatedField<uint32_t>& ids,
                                        const FieldViolations& at, absl::string_view field);

 private:
  // What is too large for an int stays too large for any range it is held to.
  static std::vector<int> ToInts(const google::protobuf::RepeatedField<uint32_t>& values);
  engine::Intervention Intervention(const v1::Intervention& intervention, const FieldViolations& at);
  engine::Edit Edit(const v1::Intervention& intervention, const FieldViolations& at);
  engine::HookSite Site(const v1::HookSite& site, const FieldViolations& at);
  engine::HookPoint Point(v1::HookPoint point, const FieldViolations& at);
  engine::Selector Selector(const v1::Selector& selector, const FieldViolations& at);
  engine::PositionSelector Positions(const v1::PositionSelector& positions, const FieldViolations& at);
  engine::ActivationSource Source(const v1::ActivationSource& source, const FieldViolations& at);
  std::vector<engine::ActivationSource> Sources(
      const google::protobuf::RepeatedPtrField<v1::ActivationSource>& sources, const FieldViolations& at);
  engine::HostTensor Tensor(const v1::Tensor& tensor, const FieldViolations& at);
  engine::TokenizedPrompt ChatPrompt(const v1::ChatPrompt& chat, const FieldViolations& at);
  engine::TokenizedPrompt TextPrompt(const std::string& text, bool omit_begin_of_text);
  void Fail(const absl::Status& status);

  const engine::Model& model_;
  ActivationStore& store_;
  Violations violations_;
  absl::Status failure_;
};

v1::HookPoint ToProto(engine::HookPoint point);

}  // namespace mechinterp

#endif  // SERVICES_MODEL_REQUEST_PARSING_H_
