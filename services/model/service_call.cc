#include "services/model/service_call.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/operations/cached_run.h"
#include "services/model/request_limits.h"
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

// Of the values that an edit carries.
size_t TensorBytes(const v1::Intervention& intervention) {
  switch (intervention.edit_case()) {
    case v1::Intervention::kReplacement:
      return intervention.replacement().source().tensor().data().size();
    case v1::Intervention::kAddition:
      return intervention.addition().vector().data().size();
    case v1::Intervention::kProjectionRemoval:
      return intervention.projection_removal().direction().data().size();
    default:
      return 0;
  }
}

// As many as there may be at most, where they are more.
int64_t SiteCount(const v1::Intervention& intervention, const engine::ModelConfig& config) {
  if (!intervention.has_sites()) return 1;
  const v1::SiteGroup& sites = intervention.sites();
  const int64_t layers = sites.layers().empty() ? config.layer_count() : sites.layers_size();
  return std::min<int64_t>(kMostInterventions, sites.points_size() * layers);
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
  constexpr int64_t kUnreservedBytes = 1 << 20;
  if (bytes <= kUnreservedBytes) return absl::OkStatus();
  parsing_memory = {};
  ABSTRACT_ASSIGN_OR_RETURN(parsing_memory, served.budget.Reserve(bytes));
  return absl::OkStatus();
}

int64_t ServiceCall::PlanBytes(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions) const {
  // For a byte of a request: 106 measured over 100,000 sets of one short edit.
  constexpr int64_t kBytesPerByte = 128;
  constexpr int64_t kBytesOfASet = 512;
  int64_t bytes = kBytesOfASet;
  for (const v1::Intervention& intervention : interventions) {
    const auto tensor = static_cast<int64_t>(TensorBytes(intervention));
    const auto rest = static_cast<int64_t>(intervention.ByteSizeLong()) - tensor;
    // fp16 becomes fp32.
    bytes += SiteCount(intervention, served.config()) * (2 * tensor + kBytesPerByte * rest);
  }
  return bytes;
}

absl::Status ServiceCall::HoldForPlans(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions, int prompts) {
  if (interventions.empty()) return absl::OkStatus();
  const int64_t bytes = PlanBytes(interventions) * prompts;  // of at most 10,000 prompts and 4096 edits
  if (bytes > served.options.max_activation_bytes) {
    Violations violations;
    violations.Add("interventions",
                   absl::StrCat("would take ", bytes, " bytes, compiled for each of ", prompts,
                                " prompts; the server allows ", served.options.max_activation_bytes,
                                ". Send fewer prompts at a time, or keep the values in a stored run"));
    return ToStatus(violations);
  }
  return HoldForParsing(bytes);
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
