#ifndef TESTS_SERVICES_ENGINE_RANDOM_REQUESTS_H_
#define TESTS_SERVICES_ENGINE_RANDOM_REQUESTS_H_

#include <random>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/interventions/intervention.h"

namespace mechinterp::engine {

// Random prompts, sites and interventions for property tests.
class RandomRequests {
 public:
  RandomRequests(const ModelConfig& config, unsigned seed) : config_(config), random_(seed) {}

  int Int(int below) { return static_cast<int>(random_() % below); }
  TokenizedPrompt Prompt(int length);
  HookSite Site();
  // An edit at any site, of any kind but noise and resampling; sources are
  // prompts as long as `prompt`.
  Intervention AnyIntervention(const TokenizedPrompt& prompt);
  InterventionSet Interventions(const TokenizedPrompt& prompt, int count);

 private:
  HostTensor Vector(int64_t size);
  const ModelConfig config_;
  std::mt19937 random_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_RANDOM_REQUESTS_H_
