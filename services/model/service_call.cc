#include "services/model/service_call.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/response_building.h"

namespace mechinterp {

namespace {

// How much more of a pass a client's work may want than work of the next priority.
constexpr double kUrgency = 4;

// A client's urgent work and its other work are told apart, so that the one does not wait for the other.
RequestOwner OwnerOf(const Call& call) {
  const int rank = static_cast<int>(call.priority());
  return {absl::StrCat(call.caller().name, "/", rank), call.caller().weight * std::pow(kUrgency, -rank)};
}

}  // namespace

ServiceCall::ServiceCall(ServedModel& served_model, Call& call)
    : rpc(&call),
      is_cancelled([&call] { return call.IsCancelled(); }),
      served(served_model),
      request(served.scheduler, is_cancelled, OwnerOf(call)),
      context{request, is_cancelled, absl::ZeroDuration()},
      start(absl::Now()) {}

ServiceCall::ServiceCall(ServedModel& served_model, std::function<bool()> is_over)
    : rpc(nullptr),
      is_cancelled(std::move(is_over)),
      served(served_model),
      request(served.scheduler, is_cancelled),
      context{request, is_cancelled, absl::ZeroDuration()},
      start(absl::Now()) {}

ServiceCall::~ServiceCall() {
  if (rpc == nullptr) return;
  rpc->facts().engine_wait = context.waited;
  rpc->facts().passes = request.passes();
}

void ServiceCall::CountPrompt(const engine::TokenizedPrompt& prompt, int tokens) {
  served.metrics.prompt_tokens.Increment(tokens);
  if (rpc == nullptr) return;
  CallFacts& facts = rpc->facts();
  facts.prompt_tokens += tokens;
  if (!facts.wants_prompt || !facts.prompt.empty()) return;
  const auto& tokenizer = served.model->tokenizer();
  facts.prompt = tokenizer == nullptr ? absl::StrJoin(prompt.ids, " ") : tokenizer->Decode(prompt.ids);
}

void ServiceCall::CountNewTokens(int tokens) {
  served.metrics.generated_tokens.Increment(tokens);
  if (rpc != nullptr) rpc->facts().new_tokens += tokens;
}

absl::Status ServiceCall::Admit(int64_t bytes) {
  ABSTRACT_RETURN_IF_ERROR(served.device_check.MayServe());
  return AdmitUnchecked(bytes);
}

absl::Status ServiceCall::HoldForParsing(int64_t bytes) {
  ABSTRACT_ASSIGN_OR_RETURN(parsing_memory, served.budget.Reserve(bytes));
  return absl::OkStatus();
}

absl::Status ServiceCall::AdmitUnchecked(int64_t bytes) {
  ABSTRACT_ASSIGN_OR_RETURN(memory, served.budget.Reserve(bytes));
  return request.Admit();
}

absl::StatusOr<std::vector<std::shared_ptr<const engine::HookPlan>>> ServiceCall::AdmitAndCompile(
    const engine::PlanCompiler& compiler, int64_t run_bytes) {
  ABSTRACT_RETURN_IF_ERROR(Admit(
      engine::RequestBytes(served.config(), compiler, served.options.scheduler.max_batch_rows, run_bytes)));
  return engine::RunSourcesAndFinish(context, compiler);
}

v1::RunTimings ServiceCall::Timings() const { return BuildTimings(context.waited, absl::Now() - start); }

}  // namespace mechinterp
