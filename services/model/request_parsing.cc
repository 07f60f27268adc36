#include "services/model/request_parsing.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "services/common/tensor_proto.h"
#include "services/engine/tokenizer/chat/chat_template.h"

namespace mechinterp {

absl::Status RequestParser::status() const {
  if (!failure_.ok()) return failure_;
  return ToStatus(violations_);
}

void RequestParser::Fail(const absl::Status& status) {
  if (failure_.ok()) failure_ = status;
}

engine::TokenizedPrompt RequestParser::Prompt(const v1::Prompt& prompt, const FieldViolations& at,
                                              bool omit_begin_of_text) {
  engine::TokenizedPrompt result;
  switch (prompt.prompt_case()) {
    case v1::Prompt::kText:
      result = TextPrompt(prompt.text(), omit_begin_of_text);
      if (prompt.text().empty()) at.At("text").Add("must not be empty");
      break;
    case v1::Prompt::kChat:
      result = ChatPrompt(prompt.chat(), at.At("chat"));
      break;
    case v1::Prompt::kTokenIds:
      result.ids = TokenIds(prompt.token_ids().ids(), at.At("token_ids"), "ids");
      if (result.ids.empty()) at.At("token_ids").At("ids").Add("must not be empty");
      break;
    case v1::Prompt::PROMPT_NOT_SET:
      at.Add("must have text, chat or token_ids");
      break;
  }
  return result;
}

engine::TokenizedPrompt RequestParser::PromptToRun(const v1::Prompt& prompt, int reserved,
                                                   const FieldViolations& at) {
  engine::TokenizedPrompt result = Prompt(prompt, at);
  CheckKnown(result.ids, at);
  const int limit = model_.config().context_length;
  if (result.length() + reserved > limit) {
    at.Add(reserved == 0 ? absl::StrCat("is ", result.length(), " tokens long, the model's context ", limit)
                         : absl::StrCat("is ", result.length(), " tokens long; with ", reserved,
                                        " to come that exceeds the model's context of ", limit));
  }
  return result;
}

void RequestParser::CheckKnown(const std::vector<engine::TokenId>& ids, const FieldViolations& at) const {
  const int vocabulary = model_.config().vocabulary_size;
  for (const engine::TokenId id : ids) {
    // Of a text: a special token that the tokenizer has and the model has not.
    if (id < vocabulary) continue;
    at.Add(absl::StrCat("holds the token '", model_.tokenizer()->Decode({id}), "' (id ", id,
                        "), which is past the model's embedding of ", vocabulary, " tokens"));
    return;
  }
}

engine::TokenizedPrompt RequestParser::TextPrompt(const std::string& text, bool omit_special_tokens) {
  if (model_.tokenizer() == nullptr) {
    Fail(ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         "this checkpoint has no tokenizer; send token_ids", "NO_TOKENIZER"));
    return {};
  }
  std::vector<engine::TokenId> ids = model_.tokenizer()->Encode(text);
  if (!omit_special_tokens) {
    const std::vector<engine::TokenId>& before = model_.text_frame().before;
    const std::vector<engine::TokenId>& after = model_.text_frame().after;
    // A text that begins with them itself gets no second ones.
    const bool has_them =
        ids.size() >= before.size() && std::equal(before.begin(), before.end(), ids.begin());
    if (!has_them) ids.insert(ids.begin(), before.begin(), before.end());
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return {std::move(ids), {}};
}

engine::TokenizedPrompt RequestParser::ChatPrompt(const v1::ChatPrompt& chat, const FieldViolations& at) {
  if (!model_.chat_template()) {
    Fail(ErrorWithReason(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("this model is served without a chat template; send text or token_ids. ",
                     model_.tokenizer() == nullptr ? "It has no tokenizer" : model_.chat_refusal()),
        "NO_CHAT_TEMPLATE"));
    return {};
  }
  std::vector<engine::ChatMessage> messages;
  if (chat.messages().empty()) at.At("messages").Add("must not be empty");
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    const FieldViolations at_message = at.At("messages", i);
    if (message.content().empty()) at_message.At("content").Add("must not be empty");
    switch (message.role()) {
      case v1::CHAT_ROLE_SYSTEM:
        messages.push_back({engine::ChatRole::kSystem, message.content()});
        break;
      case v1::CHAT_ROLE_USER:
        messages.push_back({engine::ChatRole::kUser, message.content()});
        break;
      case v1::CHAT_ROLE_ASSISTANT:
        messages.push_back({engine::ChatRole::kAssistant, message.content()});
        break;
      default:
        at_message.At("role").Add("must be SYSTEM, USER or ASSISTANT");
    }
  }
  if (!at.empty()) return {};
  absl::StatusOr<engine::TemplatedPrompt> templated =
      engine::ApplyChatTemplate(*model_.chat_template(), *model_.tokenizer(), messages);
  if (!templated.ok()) {
    at.At("messages").Add(std::string(templated.status().message()));
    return {};
  }
  engine::TokenizedPrompt prompt{std::move(templated->ids), {}};
  if (templated->last_instruction_position >= 0) {
    prompt.last_instruction_position = templated->last_instruction_position;
  }
  return prompt;
}

std::vector<engine::TokenId> RequestParser::TokenIds(const google::protobuf::RepeatedField<uint32_t>& ids,
                                                     const FieldViolations& at, absl::string_view field) {
  std::vector<engine::TokenId> result;
  result.reserve(ids.size());
  const auto limit = static_cast<uint32_t>(model_.config().vocabulary_size);
  size_t faults = 0;
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= limit && ++faults <= Violations::kMaxKept)
      at.At(field, i).Add(absl::StrCat("token id ", ids[i], " is not in [0, ", limit, ")"));
    result.push_back(static_cast<engine::TokenId>(std::min(ids[i], limit - 1)));
  }
  return result;
}

engine::SamplingOptions RequestParser::Sampling(const v1::SamplingOptions& sampling,
                                                const FieldViolations& at) {
  engine::SamplingOptions options;
  const int limit = model_.config().context_length;
  if (sampling.has_max_new_tokens()) {
    if (sampling.max_new_tokens() < 1 || sampling.max_new_tokens() > static_cast<uint32_t>(limit)) {
      at.At("max_new_tokens").Add(absl::StrCat(sampling.max_new_tokens(), " is not in [1, ", limit, "]"));
    }
    options.max_new_tokens = static_cast<int>(std::min<uint32_t>(sampling.max_new_tokens(), limit));
  }
  // Negated, so that NaN is refused too.
  if (!(sampling.temperature() >= 0 && sampling.temperature() <= 1e6)) {
    at.At("temperature").Add("must be in [0, 1e6]");
  }
  options.temperature = sampling.temperature();
  options.top_k = static_cast<int>(std::min<uint32_t>(sampling.top_k(), INT32_MAX));
  options.top_p = sampling.has_top_p() ? sampling.top_p() : 1;
  if (!(options.top_p > 0 && options.top_p <= 1)) at.At("top_p").Add("must be in (0, 1]");
  options.seed = sampling.seed();
  options.stop_token_ids = TokenIds(sampling.stop_token_ids(), at, "stop_token_ids");
  options.ignore_stop_tokens = sampling.ignore_stop_tokens();
  return options;
}

engine::MetricOptions RequestParser::Metrics(const v1::MetricOptions& metrics, const FieldViolations& at) {
  engine::MetricOptions options;
  options.refusal_token_ids = TokenIds(metrics.refusal_token_ids(), at, "refusal_token_ids");
  options.compliance_token_ids = TokenIds(metrics.compliance_token_ids(), at, "compliance_token_ids");
  auto openings = [&](const auto& given, absl::string_view field) {
    std::vector<std::vector<engine::TokenId>> result;
    for (int i = 0; i < given.size(); ++i) {
      const FieldViolations at_opening = at.At(field, i);
      result.push_back(TokenIds(given[i].ids(), at_opening, "ids"));
      if (result.back().empty()) at_opening.At("ids").Add("must not be empty");
    }
    return result;
  };
  options.refusal_openings = openings(metrics.refusal_openings(), "refusal_openings");
  options.compliance_openings = openings(metrics.compliance_openings(), "compliance_openings");
  if (metrics.top_token_count() > 1000) at.At("top_token_count").Add("must be at most 1000");
  options.top_token_count = std::min(static_cast<int>(std::min<uint32_t>(metrics.top_token_count(), 1000)),
                                     model_.config().vocabulary_size);
  return engine::AsSets(std::move(options));
}

void RequestParser::RefuseOpenings(const v1::MetricOptions& metrics, const FieldViolations& at) {
  constexpr absl::string_view kRefusal = "must be empty here";
  if (!metrics.refusal_openings().empty()) at.At("refusal_openings").Add(kRefusal);
  if (!metrics.compliance_openings().empty()) at.At("compliance_openings").Add(kRefusal);
}

void RequestParser::Compile(const engine::TokenizedPrompt& prompt,
                            const engine::InterventionSet& interventions,
                            const engine::CaptureRequest& capture, engine::PlanCompiler& compiler,
                            const FieldViolations& at) {
  if (prompt.length() > 0) compiler.Add(prompt, interventions, capture, at);
}

}  // namespace mechinterp
