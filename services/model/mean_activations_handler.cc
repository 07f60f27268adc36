#include "services/model/mean_activations_handler.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/mean_activations.h"
#include "services/model/activation_chunks.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"
#include "services/model/response_building.h"

namespace mechinterp {
namespace {

struct ParsedMeans {
  explicit ParsedMeans(const engine::ModelConfig& config) : compiler(config) {}

  int64_t EstimateBytes(const engine::ModelConfig& config, int batch_rows) const {
    std::vector<int> lengths;
    for (const engine::TokenizedPrompt& prompt : means.prompts) lengths.push_back(prompt.length());
    return engine::MeanActivationsBytes(config, capture.sites, positions, lengths, batch_rows);
  }

  engine::PlanCompiler compiler;
  engine::MeanActivationsRequest means;  // the plans come when they are compiled
  engine::CaptureRequest capture;
  int64_t positions = 0;  // that are selected of each prompt
};

class MeansParser {
 public:
  MeansParser(ServiceCall& call, const v1::RunMeanActivationsRequest& request)
      : request_(request),
        parser_(*call.served.model, call.served.store, call.owner()),
        parsed_(call.served.config()) {}

  absl::StatusOr<ParsedMeans> Parse() {
    const FieldViolations violations = parser_.violations();
    if (request_.prompts().empty()) violations.At("prompts").Add("must have at least one");
    interventions_ = ParseInterventions(parser_, request_.interventions(), violations);
    parsed_.capture = ParseFilter(parser_, request_.filter(), violations.At("filter"));
    for (const engine::HookSite& site : parsed_.capture.sites) {
      if (!engine::IsOverKeys(site.point)) continue;
      violations.At("filter").Add("must leave out attention scores and patterns: prompts' keys differ");
      break;
    }
    for (int i = 0; i < request_.prompts_size(); ++i) {
      AddPrompt(i);
      ABSTRACT_RETURN_IF_ERROR(parser_.status());  // the others may be wrong in the same way, and are many
    }
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    return std::move(parsed_);
  }

 private:
  void AddPrompt(int index) {
    const FieldViolations at = parser_.violations().At("prompts", static_cast<size_t>(index));
    engine::TokenizedPrompt prompt = parser_.PromptToRun(request_.prompts(index), 0, at);
    RequestParser::Compile(prompt, interventions_, parsed_.capture, parsed_.compiler, parser_.violations());
    if (!parser_.status().ok()) return;
    const auto positions =
        static_cast<int64_t>(engine::ResolvePositions(parsed_.capture.positions, prompt,
                                                      parser_.violations().At("filter").At("positions"))
                                 .size());
    if (index == 0) {
      parsed_.positions = positions;
    } else if (positions != parsed_.positions) {
      at.Add(absl::StrCat("has ", positions, " of the positions selected, prompts[0] has ", parsed_.positions,
                          ". Select named positions, or some from the end, that all prompts have"));
    }
    parsed_.means.prompts.push_back(std::move(prompt));
  }

  const v1::RunMeanActivationsRequest& request_;
  RequestParser parser_;
  engine::InterventionSet interventions_;
  ParsedMeans parsed_;
};

// As it is sent: means, then variances.
std::vector<float> ToFloats(const engine::ActivationMoments& moments) {
  std::vector<float> values;
  values.reserve(moments.mean.size() + moments.variance.size());
  for (const double mean : moments.mean) values.push_back(static_cast<float>(mean));
  for (const double variance : moments.variance) values.push_back(static_cast<float>(variance));
  return values;
}

using Writer = MessageWriter<v1::RunMeanActivationsResponse>;

// In the order of the pass.
absl::Status WriteMeans(ServiceCall& call, const std::map<engine::HookSite, engine::ActivationMoments>& means,
                        int prompt_count, Writer& writer) {
  const engine::ModelConfig& config = call.served.config();
  std::vector<const engine::ActivationMoments*> ordered;
  v1::RunMeanActivationsResponse message;
  v1::MeanActivationsHeader& header = *message.mutable_header();
  *header.mutable_model() = call.served.Identity();
  header.set_prompt_count(static_cast<uint32_t>(prompt_count));
  uint64_t bytes = 0;
  for (const engine::HookSite& site : engine::AllSites(config)) {
    const auto found = means.find(site);
    if (found == means.end()) continue;
    ordered.push_back(&found->second);
    std::vector<int64_t> shape = engine::PublicShape(site.point, config, found->second.shape[0], 0);
    shape.insert(shape.begin(), 2);
    *header.add_activations() = BuildActivationInfo(site, shape);
    bytes += header.activations().rbegin()->byte_count();
  }
  ABSTRACT_RETURN_IF_ERROR(writer.Write(message));
  absl::Status status;
  for (size_t i = 0; i < ordered.size() && status.ok(); ++i) {
    ForEachChunkOf(static_cast<uint32_t>(i), ToFloats(*ordered[i]),
                   v1::RunMeanActivationsResponse::kChunkFieldNumber, [&](grpc::ByteBuffer chunk) {
                     status = writer.WriteSerialized(std::move(chunk));
                     return status.ok();
                   });
  }
  ABSTRACT_RETURN_IF_ERROR(status);
  message.Clear();
  *message.mutable_summary()->mutable_timings() = call.Timings();
  message.mutable_summary()->set_total_byte_count(bytes);
  return writer.Write(message);
}

}  // namespace

absl::Status HandleRunMeanActivations(ServiceCall& call, const v1::RunMeanActivationsRequest& request,
                                      Writer& writer) {
  ABSTRACT_RETURN_IF_ERROR(call.HoldForPlans(request.interventions(), request.prompts_size()));
  ABSTRACT_ASSIGN_OR_RETURN(ParsedMeans parsed, MeansParser(call, request).Parse());
  ABSTRACT_ASSIGN_OR_RETURN(
      parsed.means.plans,
      call.AdmitAndCompile(parsed.compiler,
                           parsed.EstimateBytes(call.served.config(), call.request.preferred_batch_rows())));
  for (const engine::TokenizedPrompt& prompt : parsed.means.prompts) call.CountPrompt(prompt, prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(const auto means, engine::RunMeanActivations(call.context, parsed.means));
  call.request.Leave();  // sending needs no engine
  return WriteMeans(call, means, request.prompts_size(), writer);
}

}  // namespace mechinterp
