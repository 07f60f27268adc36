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
      : call_(call),
        request_(request),
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
    CheckSelector();
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    for (int i = 0; i < request_.prompts_size(); ++i) ABSTRACT_RETURN_IF_ERROR(ReadPrompt(i));
    ABSTRACT_RETURN_IF_ERROR(HoldForCaptures());
    for (int i = 0; i < request_.prompts_size(); ++i) ABSTRACT_RETURN_IF_ERROR(CompilePrompt(i));
    return std::move(parsed_);
  }

 private:
  // The selector is resolved for each prompt: what a few bytes of many prompts and a long list would make
  // endless.
  void CheckSelector() {
    constexpr int64_t kMostLookedUp = 50'000'000;
    const v1::PositionSelector& positions = request_.filter().positions();
    const int64_t entries = positions.indices_size() + positions.ranges_size() + positions.named_size();
    if (entries * request_.prompts_size() <= kMostLookedUp) return;
    parser_.violations()
        .At("filter")
        .At("positions")
        .Add(absl::StrCat("lists ", entries, " entries for each of ", request_.prompts_size(),
                          " prompts, of which there may be ", kMostLookedUp, " in all"));
  }

  absl::Status ReadPrompt(int index) {
    const FieldViolations at = AtPrompt(index);
    engine::TokenizedPrompt prompt = parser_.PromptToRun(request_.prompts(index), 0, at);
    if (prompt.length() > 0) {
      const auto positions =
          static_cast<int64_t>(engine::ResolvePositions(parsed_.capture.positions, prompt,
                                                        parser_.violations().At("filter").At("positions"))
                                   .size());
      if (index == 0) parsed_.positions = positions;
      if (parser_.status().ok() && positions != parsed_.positions) {
        at.Add(absl::StrCat("has ", positions, " of the positions selected, prompts[0] has ",
                            parsed_.positions,
                            ". Select named positions, or some from the end, that all prompts have"));
      }
    }
    parsed_.means.prompts.push_back(std::move(prompt));
    return StatusAt(index);
  }

  // Each prompt's plan lists the positions of each site.
  absl::Status HoldForCaptures() {
    constexpr int64_t kCaptureBytes = 128;
    const auto captures = static_cast<int64_t>(parsed_.capture.sites.size()) * request_.prompts_size();
    const int64_t edits = request_.interventions().empty()
                              ? 0
                              : call_.PlanBytes(request_.interventions()) * request_.prompts_size();
    const int64_t bytes = captures * (kCaptureBytes + parsed_.positions * static_cast<int64_t>(sizeof(int)));
    const int64_t limit = call_.served.options.max_activation_bytes;
    if (bytes > limit) {
      parser_.violations().At("filter").Add(
          absl::StrCat("to list its activations for each of ", request_.prompts_size(),
                       " prompts would take ", bytes, " bytes; the server allows ", limit,
                       ". Send fewer prompts at a time, or name fewer sites or "
                       "positions"));
      return parser_.status();
    }
    return call_.HoldForParsing(edits + bytes);
  }

  absl::Status CompilePrompt(int index) {
    RequestParser::Compile(parsed_.means.prompts[static_cast<size_t>(index)], interventions_, parsed_.capture,
                           parsed_.compiler, parser_.violations());
    return StatusAt(index);
  }

  // What is wrong so far, if anything: then with this prompt. The others may be wrong in the same way,
  // and are many.
  absl::Status StatusAt(int index) {
    if (!parser_.status().ok() && AtPrompt(index).empty()) AtPrompt(index).Add("is where that is so");
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    return call_.is_cancelled() ? absl::CancelledError("nobody waits for the answer any longer")
                                : absl::OkStatus();
  }

  FieldViolations AtPrompt(int index) {
    return parser_.violations().At("prompts", static_cast<size_t>(index));
  }

  ServiceCall& call_;
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
  for (const engine::TokenizedPrompt& prompt : parsed.means.prompts)
    call.CountPrompt(prompt, prompt.length());
  ABSTRACT_ASSIGN_OR_RETURN(const auto means, engine::RunMeanActivations(call.context, parsed.means));
  call.request.Leave();  // sending needs no engine
  return WriteMeans(call, means, request.prompts_size(), writer);
}

}  // namespace mechinterp
