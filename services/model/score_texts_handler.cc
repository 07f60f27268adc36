#include "services/model/score_texts_handler.h"

#include <numeric>
#include <utility>
#include <vector>

#include "services/common/status_macros.h"
#include "services/engine/operations/text_scores.h"
#include "services/model/intervention_parsing.h"
#include "services/model/request_parsing.h"

namespace mechinterp {
namespace {

struct ParsedTexts {
  explicit ParsedTexts(const engine::ModelConfig& config) : compiler(config) {}

  engine::PlanCompiler compiler;
  std::vector<engine::TextToScore> texts;  // the plans come when they are compiled
};

std::vector<engine::TokenId> ReadContinuation(RequestParser& parser, const std::string& text,
                                              const FieldViolations& at) {
  v1::Prompt continuation;
  continuation.set_text(text);
  std::vector<engine::TokenId> ids = parser.Prompt(continuation, at, /*omit_begin_of_text=*/true).ids;
  parser.CheckKnown(ids, at);
  return ids;
}

std::vector<engine::TokenId> ParseContinuation(RequestParser& parser, const v1::TextToScore& text,
                                               const FieldViolations& at) {
  switch (text.continuation_case()) {
    case v1::TextToScore::kContinuationText:
      if (text.continuation_text().empty()) {
        at.At("continuation_text").Add("must not be empty");
        return {};
      }
      return ReadContinuation(parser, text.continuation_text(), at.At("continuation_text"));
    case v1::TextToScore::kContinuationTokenIds: {
      const FieldViolations at_ids = at.At("continuation_token_ids");
      if (text.continuation_token_ids().ids().empty()) at_ids.At("ids").Add("must not be empty");
      return parser.TokenIds(text.continuation_token_ids().ids(), at_ids, "ids");
    }
    case v1::TextToScore::CONTINUATION_NOT_SET:
      break;
  }
  return {};
}

absl::StatusOr<ParsedTexts> ParseTexts(ServiceCall& call, const v1::ScoreTextsRequest& request) {
  RequestParser parser(*call.served.model, call.served.store, call.owner());
  ParsedTexts parsed(call.served.config());
  const FieldViolations violations = parser.violations();
  if (request.texts().empty()) violations.At("texts").Add("must have at least one");
  const engine::InterventionSet interventions =
      ParseInterventions(parser, request.interventions(), violations);
  for (int i = 0; i < request.texts_size(); ++i) {
    const FieldViolations at = violations.At("texts", static_cast<size_t>(i));
    engine::TextToScore text;
    text.continuation = ParseContinuation(parser, request.texts(i), at);
    // Nothing is asked after the last token, which the context must hold all the same.
    text.prompt = parser.PromptToRun(request.texts(i).prompt(), static_cast<int>(text.continuation.size()),
                                     at.At("prompt"));
    if (text.prompt.length() == 1 && text.continuation.empty()) {
      at.At("prompt").Add("is a single token, which follows nothing; nothing of it can be scored");
    }
    RequestParser::Compile(text.prompt, interventions, {}, parsed.compiler, violations);
    parsed.texts.push_back(std::move(text));
    // The others may be wrong in the same way, and are many.
    if (!parser.status().ok() && at.empty()) at.Add("is where that is so");
    ABSTRACT_RETURN_IF_ERROR(parser.status());
    if (call.is_cancelled()) return absl::CancelledError("nobody waits for the answer any longer");
  }
  ABSTRACT_RETURN_IF_ERROR(parser.status());
  return parsed;
}

// Writes the messages of one stream, and adds up what they tell.
class ScoreWriter {
 public:
  ScoreWriter(ServiceCall& call, const std::vector<engine::TextToScore>& texts,
              MessageWriter<v1::ScoreTextsResponse>& writer)
      : call_(call), texts_(texts), writer_(writer) {}

  absl::Status WriteHeader() {
    v1::ScoreTextsResponse message;
    *message.mutable_header()->mutable_model() = call_.served.Identity();
    message.mutable_header()->set_text_count(static_cast<uint32_t>(texts_.size()));
    return writer_.Write(message);
  }

  absl::Status WriteScore(size_t index, const std::vector<double>& log_probabilities) {
    const engine::TextToScore& text = texts_[index];
    v1::ScoreTextsResponse message;
    v1::TextScore& score = *message.mutable_score();
    score.set_text_index(static_cast<uint32_t>(index));
    score.set_first_position(static_cast<uint32_t>(text.first_scored()));
    for (int position = text.first_scored(); position < text.length(); ++position) {
      score.add_token_ids(static_cast<uint32_t>(text.token(position)));
    }
    score.mutable_log_probabilities()->Add(log_probabilities.begin(), log_probabilities.end());
    const double sum = std::accumulate(log_probabilities.begin(), log_probabilities.end(), 0.0);
    score.set_cross_entropy(-sum / static_cast<double>(log_probabilities.size()));
    log_probability_ += sum;
    token_count_ += log_probabilities.size();
    return writer_.Write(message);
  }

  absl::Status WriteSummary() {
    v1::ScoreTextsResponse message;
    v1::ScoreTextsSummary& summary = *message.mutable_summary();
    *summary.mutable_timings() = call_.Timings();
    summary.set_token_count(token_count_);
    summary.set_cross_entropy(-log_probability_ / static_cast<double>(token_count_));
    return writer_.Write(message);
  }

 private:
  ServiceCall& call_;
  const std::vector<engine::TextToScore>& texts_;
  MessageWriter<v1::ScoreTextsResponse>& writer_;
  double log_probability_ = 0;
  uint64_t token_count_ = 0;
};

}  // namespace

absl::Status HandleScoreTexts(ServiceCall& call, const v1::ScoreTextsRequest& request,
                              MessageWriter<v1::ScoreTextsResponse>& writer) {
  ABSTRACT_RETURN_IF_ERROR(call.HoldForPlans(request.interventions(), request.texts_size()));
  ABSTRACT_ASSIGN_OR_RETURN(ParsedTexts parsed, ParseTexts(call, request));
  ABSTRACT_ASSIGN_OR_RETURN(
      const auto plans,
      call.AdmitAndCompile(parsed.compiler, engine::TextScoreBytes(call.served.config(), parsed.texts)));
  for (size_t i = 0; i < plans.size(); ++i) {
    parsed.texts[i].plan = plans[i];
    call.CountPrompt(parsed.texts[i].prompt, parsed.texts[i].length());
  }
  ScoreWriter out(call, parsed.texts, writer);
  ABSTRACT_RETURN_IF_ERROR(out.WriteHeader());
  ABSTRACT_RETURN_IF_ERROR(engine::ScoreTexts(
      call.context, parsed.texts, [&](size_t index, const std::vector<double>& log_probabilities) {
        return out.WriteScore(index, log_probabilities);
      }));
  return out.WriteSummary();
}

}  // namespace mechinterp
