#include "services/model/readout_handler.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/direct_attribution.h"
#include "services/engine/operations/logit_lens.h"
#include "services/model/intervention_parsing.h"
#include "services/model/readout_writer.h"
#include "services/model/request_parsing.h"

namespace mechinterp {
namespace {

constexpr int kMostPrompts = 1000;
constexpr uint32_t kMostNeurons = 100'000;

// What is asked of each prompt; by the lens, or else by direct attribution.
struct ParsedReadout {
  explicit ParsedReadout(const engine::ModelConfig& config) : compiler(config) {}

  // Bytes of the prompt that takes most.
  int64_t EstimateBytes(const engine::ModelConfig& config) const {
    int64_t most = 0;
    for (const engine::LensRequest& prompt : prompts) {
      most = std::max(most, direct ? engine::DirectAttributionBytes(config, DirectOf(prompt))
                                   : engine::LensBytes(config, prompt));
    }
    return most;
  }

  engine::DirectAttributionRequest DirectOf(const engine::LensRequest& prompt) const {
    engine::DirectAttributionRequest request = *direct;
    request.prompt = prompt.prompt;
    request.plan = prompt.plan;
    request.positions = prompt.positions;
    return request;
  }

  engine::PlanCompiler compiler;  // a plan for each prompt
  std::vector<engine::LensRequest> prompts;
  std::optional<engine::DirectAttributionRequest> direct;  // but the prompt and its positions
};

class ReadoutParser {
 public:
  ReadoutParser(ServiceCall& call, const v1::RunReadoutRequest& request)
      : request_(request),
        parser_(*call.served.model, call.served.store, call.owner()),
        parsed_(call.served.config()) {}

  absl::StatusOr<ParsedReadout> Parse() {
    ParseMetrics();
    switch (request_.readout_case()) {
      case v1::RunReadoutRequest::kLogitLens:
        ParseLens();
        break;
      case v1::RunReadoutRequest::kDirectAttribution:
        ParseDirect();
        break;
      case v1::RunReadoutRequest::READOUT_NOT_SET:
        parser_.violations().At("readout").Add("must be logit_lens or direct_attribution");
    }
    if (request_.prompts().empty() || request_.prompts_size() > kMostPrompts) {
      parser_.violations().At("prompts").Add(absl::StrCat("must be 1 to ", kMostPrompts));
    } else {
      ParsePrompts();
    }
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    return std::move(parsed_);
  }

 private:
  void ParseMetrics() {
    const FieldViolations at = parser_.violations().At("metrics");
    common_.metrics = parser_.Metrics(request_.metrics(), at);
    RequestParser::RefuseOpenings(request_.metrics(), at);
  }

  void ParseLens() {
    common_.resid_mid = request_.logit_lens().resid_mid();
    if (!request_.logit_lens().has_target_token_id()) return;
    const uint32_t target = request_.logit_lens().target_token_id();
    const auto limit = static_cast<uint32_t>(parser_.model().config().vocabulary_size);
    if (target >= limit) {
      parser_.violations()
          .At("logit_lens")
          .At("target_token_id")
          .Add(absl::StrCat("token id ", target, " is not in [0, ", limit, ")"));
    } else {
      common_.target = static_cast<engine::TokenId>(target);
    }
  }

  void ParseDirect() {
    const FieldViolations at = parser_.violations().At("metrics");
    const auto needs = [&](absl::string_view field, bool has) {
      if (!has) at.At(field).Add("must not be empty: the difference is of these tokens");
    };
    needs("refusal_token_ids", !request_.metrics().refusal_token_ids().empty());
    needs("compliance_token_ids", !request_.metrics().compliance_token_ids().empty());
    if (request_.metrics().top_token_count() > 0)
      at.At("top_token_count").Add("must be 0 with direct_attribution");
    const uint32_t neurons = request_.direct_attribution().neuron_count();
    if (neurons > kMostNeurons) {
      parser_.violations()
          .At("direct_attribution")
          .At("neuron_count")
          .Add(absl::StrCat("must be at most ", kMostNeurons));
    }
    parsed_.direct.emplace();
    parsed_.direct->refusal_token_ids = common_.metrics.refusal_token_ids;
    parsed_.direct->compliance_token_ids = common_.metrics.compliance_token_ids;
    parsed_.direct->neuron_count = static_cast<int>(std::min(neurons, kMostNeurons));
  }

  void ParsePrompts() {
    const engine::InterventionSet interventions =
        ParseInterventions(parser_, request_.interventions(), parser_.violations());
    if (parsed_.direct) {
      std::set<int> edited;
      for (const engine::Intervention& intervention : interventions) {
        if (intervention.site.point == engine::HookPoint::kResult) edited.insert(intervention.site.layer);
      }
      parsed_.direct->edited_result_layers = static_cast<int>(edited.size());
    }
    const FieldViolations at_positions = parser_.violations().At("positions");
    engine::PositionSelector positions;
    positions.named = {engine::NamedPosition::kLast};
    if (request_.has_positions()) positions = ParsePositions(request_.positions(), at_positions);
    for (int i = 0; i < request_.prompts_size(); ++i) {
      engine::LensRequest prompt = common_;
      prompt.prompt = parser_.PromptToRun(request_.prompts(i), 0, parser_.violations().At("prompts", i));
      RequestParser::Compile(prompt.prompt, interventions, {}, parsed_.compiler, parser_.violations());
      if (prompt.prompt.length() > 0) {
        prompt.positions = engine::ResolvePositions(positions, prompt.prompt, at_positions);
      }
      parsed_.prompts.push_back(std::move(prompt));
      if (!parser_.status().ok()) break;  // the others may be wrong in the same way, and are many
    }
  }

  const v1::RunReadoutRequest& request_;
  RequestParser parser_;
  engine::LensRequest common_;  // but the prompt and its positions
  ParsedReadout parsed_;
};

absl::Status AttributeDirectly(ServiceCall& call, const engine::DirectAttributionRequest& request,
                               ReadoutWriter& out) {
  call.CountPrompt(request.prompt, request.positions.back() + 1);
  return engine::AttributeDirectly(call.context, request, [&](const engine::DirectAttribution& attribution) {
    return out.WriteAttribution(attribution);
  });
}

absl::Status RunLens(ServiceCall& call, const engine::LensRequest& prompt, ReadoutWriter& out) {
  call.CountPrompt(prompt.prompt, prompt.positions.back() + 1);
  return engine::RunLogitLens(call.context, prompt,
                              [&](const engine::LensReading& reading) { return out.WriteReading(reading); });
}

}  // namespace

absl::Status HandleRunReadout(ServiceCall& call, const v1::RunReadoutRequest& request,
                              MessageWriter<v1::RunReadoutResponse>& writer) {
  ABSTRACT_RETURN_IF_ERROR(call.HoldForPlans(request.interventions(), request.prompts_size()));
  ABSTRACT_ASSIGN_OR_RETURN(ParsedReadout parsed, ReadoutParser(call, request).Parse());
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto plans, call.AdmitAndCompile(parsed.compiler, parsed.EstimateBytes(call.served.config())));
  ReadoutWriter out(call.served, writer);
  ABSTRACT_RETURN_IF_ERROR(out.WriteHeader(static_cast<uint32_t>(parsed.prompts.size())));
  for (size_t i = 0; i < parsed.prompts.size(); ++i) {
    engine::LensRequest& prompt = parsed.prompts[i];
    prompt.plan = plans[i];
    ABSTRACT_RETURN_IF_ERROR(out.WritePrompt(static_cast<uint32_t>(i), prompt.prompt));
    ABSTRACT_RETURN_IF_ERROR(parsed.direct ? AttributeDirectly(call, parsed.DirectOf(prompt), out)
                                           : RunLens(call, prompt, out));
  }
  return out.WriteSummary(call.Timings());
}

}  // namespace mechinterp
