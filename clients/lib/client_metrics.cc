#include "clients/lib/client_metrics.h"

#include "clients/lib/prompts.h"

namespace mechinterp {
namespace {

prometheus::Counter& CounterOf(prometheus::Registry& registry, const char* name, const char* help,
                               const std::string& experiment) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(
      {{"experiment", experiment}});
}

}  // namespace

ClientMetrics::ClientMetrics(std::shared_ptr<prometheus::Registry> registry, const std::string& experiment)
    : registry_(std::move(registry)),
      rpcs_(prometheus::BuildCounter()
                .Name("abstract_client_rpcs_total")
                .Help("Attempts of calls to the service, by method and status code")
                .Register(*registry_)),
      refusal_(prometheus::BuildGauge()
                   .Name("abstract_client_refusal_ratio")
                   .Help("Share of prompts refused, by condition and prompt class")
                   .Register(*registry_)),
      effect_(prometheus::BuildGauge()
                  .Name("abstract_client_effect")
                  .Help("Mean patching effect of a component: 0 none, 1 all the way to the source run")
                  .Register(*registry_)),
      runs_(CounterOf(*registry_, "abstract_client_runs_total", "Runs of the model asked for", experiment)),
      steps_(CounterOf(*registry_, "abstract_client_steps_done_total", "Finished prompts or parts of a sweep",
                       experiment)),
      progress_(prometheus::BuildGauge()
                    .Name("abstract_client_experiment_progress_ratio")
                    .Help("Finished share of the current stage")
                    .Register(*registry_)
                    .Add({{"experiment", experiment}})) {}

void ClientMetrics::CountRpc(std::string_view method, const absl::Status& status) {
  rpcs_.Add({{"method", std::string(method)}, {"code", absl::StatusCodeToString(status.code())}}).Increment();
}

void ClientMetrics::Begin(std::string_view stage, int total, int done) {
  total_ = total;
  done_ = done;
  progress_.Set(total > 0 ? static_cast<double>(done) / total : 1);
}

void ClientMetrics::Advance(int runs) {
  runs_.Increment(runs);
  steps_.Increment();
  progress_.Set(static_cast<double>(++done_) / total_);
}

void ClientMetrics::SetRefusalRate(std::string_view condition, v1::PromptClass prompt_class, double rate) {
  refusal_
      .Add({{"condition", std::string(condition)},
            {"prompt_class", std::string(PromptClassName(prompt_class))}})
      .Set(rate);
}

void ClientMetrics::SetEffect(std::string_view component, v1::PatchDirection direction, double effect) {
  const char* const name = direction == v1::PATCH_DIRECTION_NOISING ? "noising" : "denoising";
  effect_.Add({{"component", std::string(component)}, {"direction", name}}).Set(effect);
}

}  // namespace mechinterp
