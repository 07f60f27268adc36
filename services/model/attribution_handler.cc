#include "services/model/attribution_handler.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/attribution.h"
#include "services/model/attribution_scores.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"

namespace mechinterp {
namespace {

constexpr int kMostPairs = 1000;
constexpr uint32_t kMostSteps = 64, kMostScores = 2'000'000;

struct ParsedAttribution {
  explicit ParsedAttribution(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;  // a plan for each pair
  std::vector<engine::AttributionRequest> pairs;
  std::vector<std::vector<int>> positions;  // of each pair, those that are returned
};

class AttributionParser {
 public:
  AttributionParser(ServiceCall& call, const v1::RunAttributionRequest& request)
      : request_(request),
        served_(call.served),
        parser_(*served_.model, served_.store, call.owner()),
        parsed_(served_.config()) {}

  absl::StatusOr<ParsedAttribution> Parse() {
    ParseMethod();
    ParseMetric();
    engine::CaptureRequest filter;
    if (request_.edges()) {
      ParseEdges();
    } else {
      filter = ParseFilter(parser_, request_.filter(), parser_.violations().At("filter"));
      ParseSites(filter.sites);
    }
    ParseOutput();
    if (request_.pairs().empty() || request_.pairs_size() > kMostPairs) {
      parser_.violations().At("pairs").Add(absl::StrCat("must be 1 to ", kMostPairs));
    } else {
      const engine::InterventionSet interventions =
          ParseInterventions(parser_, request_.interventions(), parser_.violations());
      if (request_.exact_softmax()) CheckExactSoftmax(interventions);
      for (int i = 0; i < request_.pairs_size(); ++i) {
        ParsePair(i, interventions, filter.positions);
        if (!parser_.status().ok()) break;  // the others may be wrong in the same way, and are many
      }
    }
    ABSTRACT_RETURN_IF_ERROR(parser_.status());
    return std::move(parsed_);
  }

 private:
  bool Integrates() const { return common_.method == engine::AttributionMethod::kIntegratedGradients; }

  void ParseMethod() {
    switch (request_.method()) {
      case v1::ATTRIBUTION_METHOD_UNSPECIFIED:
      case v1::ATTRIBUTION_METHOD_GRADIENT:
        break;
      case v1::ATTRIBUTION_METHOD_GRAD_DROP:
        common_.method = engine::AttributionMethod::kGradDrop;
        break;
      case v1::ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS:
        common_.method = engine::AttributionMethod::kIntegratedGradients;
        break;
      case v1::ATTRIBUTION_METHOD_RELEVANCE:
        common_.method = engine::AttributionMethod::kRelevance;
        break;
      default:
        parser_.violations().At("method").Add("unknown value");
    }
    if (!request_.has_steps()) return;
    const FieldViolations at = parser_.violations().At("steps");
    if (!Integrates()) {
      at.Add("only INTEGRATED_GRADIENTS takes steps");
    } else if (request_.steps() < 1 || request_.steps() > kMostSteps) {
      at.Add(absl::StrCat("must be in [1, ", kMostSteps, "]"));
    } else {
      common_.steps = static_cast<int>(request_.steps());
    }
  }

  void ParseMetric() {
    const FieldViolations at = parser_.violations().At("metrics");
    common_.tokens = parser_.Metrics(request_.metrics(), at);
    if (request_.metric() != v1::ATTRIBUTION_METRIC_OPENINGS) {
      RequestParser::RefuseOpenings(request_.metrics(), at);
    }
    if (request_.metrics().top_token_count() > 0) at.At("top_token_count").Add("must be 0 here");
    const auto needs = [&](absl::string_view field, bool has) {
      if (!has) at.At(field).Add("must not be empty: the metric is made of these tokens");
    };
    switch (request_.metric()) {
      case v1::ATTRIBUTION_METRIC_UNSPECIFIED:
      case v1::ATTRIBUTION_METRIC_LOGIT_DIFFERENCE:
        needs("compliance_token_ids", !request_.metrics().compliance_token_ids().empty());
        break;
      case v1::ATTRIBUTION_METRIC_REFUSAL_LOG_ODDS:
        common_.metric = engine::MetricKind::kRefusalLogOdds;
        break;
      case v1::ATTRIBUTION_METRIC_OPENINGS:
        common_.metric = engine::MetricKind::kOpenings;
        needs("refusal_openings", !request_.metrics().refusal_openings().empty());
        if (Integrates() || request_.exact_softmax()) {
          parser_.violations().At("metric").Add("OPENINGS: not with INTEGRATED_GRADIENTS or exact_softmax");
        }
        return;
      case v1::ATTRIBUTION_METRIC_KL_FROM_CLEAN:
        common_.metric = engine::MetricKind::kKlFromClean;
        if (!Integrates() && request_.interventions().empty()) {
          parser_.violations().At("metric").Add(
              "KL_FROM_CLEAN has no slope at the clean run; use INTEGRATED_GRADIENTS, or interventions");
        }
        return;
      default:
        parser_.violations().At("metric").Add("unknown value");
        return;
    }
    needs("refusal_token_ids", !request_.metrics().refusal_token_ids().empty());
  }

  void ParseSites(const std::vector<engine::HookSite>& sites) {
    const FieldViolations at_filter = parser_.violations().At("filter");
    std::set<engine::HookSite> distinct;
    for (size_t i = 0; i < sites.size(); ++i) {
      const FieldViolations at = at_filter.At("sites", i);
      if (!engine::CheckSite(sites[i], served_.config(), at)) continue;
      if (engine::HasNodes(sites[i].point)) {
        distinct.insert(sites[i]);
      } else if (i < static_cast<size_t>(request_.filter().sites_size())) {
        at.Add(absl::StrCat(engine::SiteName(sites[i]), " has no nodes to attribute to"));
      }
    }
    common_.sites.assign(distinct.begin(), distinct.end());
    const auto is_made_anew = [this](const engine::HookSite& site) { return IsMadeAnew(site.layer); };
    if (request_.exact_softmax() && !distinct.empty() &&
        std::none_of(distinct.begin(), distinct.end(), is_made_anew)) {
      parser_.violations()
          .At("exact_softmax")
          .Add("changes nothing: the filter names no hook_q and no hook_k");
    }
    if (distinct.empty() && parser_.violations().empty()) {
      parser_.violations().At("filter").Add("nothing that it names has nodes to attribute to");
    }
  }

  // Whether the pattern of a layer is made anew of its queries or keys.
  bool IsMadeAnew(int layer) const {
    return std::any_of(common_.sites.begin(), common_.sites.end(), [layer](const engine::HookSite& site) {
      return site.layer == layer &&
             (site.point == engine::HookPoint::kQ || site.point == engine::HookPoint::kK);
    });
  }

  // Edits between the query and the pattern would have no part in what is made anew.
  void CheckExactSoftmax(const engine::InterventionSet& interventions) {
    for (size_t i = 0; i < interventions.size(); ++i) {
      const engine::HookSite& site = interventions[i].site;
      if (site.point < engine::HookPoint::kRotQ || site.point > engine::HookPoint::kPattern) continue;
      if (!IsMadeAnew(site.layer)) continue;
      parser_.violations()
          .At("interventions", i)
          .At("site")
          .Add(absl::StrCat(engine::SiteName(site),
                            " lies between what exact_softmax replaces and the pattern that it computes"));
    }
  }

  void ParseEdges() {
    common_.edges = true;
    if (request_.filter().ByteSizeLong() > 0) {
      parser_.violations().At("filter").Add("must be empty: edges are of the whole model");
    }
    if (request_.top_count() == 0) parser_.violations().At("top_count").Add("must be set with edges");
    if (common_.method == engine::AttributionMethod::kGradDrop || request_.exact_softmax() ||
        request_.sum_positions() || request_.return_gradients()) {
      parser_.violations().At("edges").Add(
          "not with GRAD_DROP, exact_softmax, sum_positions or return_gradients");
    }
  }

  void ParseOutput() {
    common_.exact_softmax = request_.exact_softmax();
    common_.with_gradients = request_.return_gradients();
    if (request_.top_count() > kMostScores) {
      parser_.violations().At("top_count").Add(absl::StrCat("must be at most ", kMostScores));
    }
    if (request_.return_gradients() &&
        (common_.method == engine::AttributionMethod::kGradDrop || request_.exact_softmax() ||
         request_.sum_positions() || request_.top_count() > 0)) {
      parser_.violations()
          .At("return_gradients")
          .Add("not with GRAD_DROP, exact_softmax, sum_positions or top_count");
    }
  }

  void ParsePair(int index, const engine::InterventionSet& interventions,
                 const engine::PositionSelector& positions) {
    const FieldViolations at = parser_.violations().At("pairs", index);
    const v1::AttributionPair& pair = request_.pairs(index);
    engine::AttributionRequest parsed = common_;
    const int reserved = common_.tokens.longest_opening();
    parsed.clean = parser_.PromptToRun(pair.prompt(), reserved, at.At("prompt"));
    parsed.source = parser_.PromptToRun(pair.source_prompt(), reserved, at.At("source_prompt"));
    if (parsed.clean.length() == 0 || parsed.source.length() == 0) return;  // reported
    if (Integrates() && parsed.clean.length() != parsed.source.length()) {
      at.At("source_prompt")
          .Add(absl::StrCat("has ", parsed.source.length(), " tokens, the prompt ", parsed.clean.length(),
                            "; integrated gradients need one length"));
    }
    RequestParser::Compile(parsed.clean, interventions, {}, parsed_.compiler, parser_.violations());
    parsed_.positions.push_back(
        engine::ResolvePositions(positions, parsed.clean, parser_.violations().At("filter").At("positions")));
    parsed_.pairs.push_back(std::move(parsed));
  }

  const v1::RunAttributionRequest& request_;
  ServedModel& served_;
  RequestParser parser_;
  engine::AttributionRequest common_;  // but the prompts
  ParsedAttribution parsed_;
};

// Of the largest scores of a pair, as they are collected: room that doubles.
int64_t LargestBytes(const engine::ModelConfig& config, const engine::AttributionRequest& pair,
                     int64_t top_count) {
  int64_t scores = 0;
  if (pair.edges) {
    for (const engine::Receiver& receiver : engine::Receivers(config)) {
      scores += engine::SenderCount(receiver, config);
    }
  }
  for (const engine::HookSite& site : pair.sites) {
    scores += pair.clean.length() * engine::UnitsOf(site.point, config);
  }
  return 3 * std::min(top_count, scores) * static_cast<int64_t>(sizeof(AttributionPlace));
}

// Decides, for each pair, whether its passes keep what the way back needs of every layer: where
// that leaves half of the memory to others. Returns the most that one of them takes.
int64_t ChooseMemory(const ServedModel& served, int batch_rows, int64_t top_count,
                     ParsedAttribution& parsed) {
  const int64_t share = served.budget.available_bytes() / 2;
  int64_t most = 0;
  for (engine::AttributionRequest& pair : parsed.pairs) {
    int64_t bytes = engine::AttributionBytes(served.config(), pair, batch_rows);
    if (bytes > share) {
      pair.keeps_all_layers = false;
      bytes = engine::AttributionBytes(served.config(), pair, batch_rows);
    }
    most = std::max(most, bytes + LargestBytes(served.config(), pair, top_count));
  }
  return most;
}

// What the way back takes where edits are of scores or patterns: the pattern, that after its edits,
// and their gradient, over all pairs of positions.
int64_t AttentionEditBytes(const engine::ModelConfig& config, const engine::PlanCompiler& compiler) {
  const int64_t length = std::max(compiler.LongestRunWith(engine::HookPoint::kAttnScores),
                                  compiler.LongestRunWith(engine::HookPoint::kPattern));
  return 3 * length * length * config.head_count * static_cast<int64_t>(sizeof(float));
}

}  // namespace

absl::Status HandleRunAttribution(ServiceCall& call, const v1::RunAttributionRequest& request,
                                  MessageWriter<v1::RunAttributionResponse>& writer) {
  ABSTRACT_RETURN_IF_ERROR(call.HoldForPlans(request.interventions(), request.pairs_size()));
  ABSTRACT_ASSIGN_OR_RETURN(ParsedAttribution parsed, AttributionParser(call, request).Parse());
  const int64_t bytes =
      ChooseMemory(call.served, call.request.preferred_batch_rows(), request.top_count(), parsed) +
      AttentionEditBytes(call.served.config(), parsed.compiler);
  ABSTRACT_ASSIGN_OR_RETURN(const auto plans, call.AdmitAndCompile(parsed.compiler, bytes));

  AttributionWriter out(call.served, request, writer);
  ABSTRACT_RETURN_IF_ERROR(out.WriteHeader());
  for (size_t i = 0; i < parsed.pairs.size(); ++i) {
    engine::AttributionRequest& pair = parsed.pairs[i];
    pair.plan = plans[i];
    call.CountPrompt(pair.clean, pair.clean.length() + pair.source.length());
    ABSTRACT_ASSIGN_OR_RETURN(engine::Attribution attribution, engine::Attribute(call.context, pair));
    ABSTRACT_RETURN_IF_ERROR(
        out.WritePair(static_cast<uint32_t>(i), pair, parsed.positions[i], std::move(attribution)));
  }
  return out.WriteSummary(call.Timings());
}

}  // namespace mechinterp
