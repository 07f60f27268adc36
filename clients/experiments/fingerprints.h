#ifndef CLIENTS_EXPERIMENTS_FINGERPRINTS_H_
#define CLIENTS_EXPERIMENTS_FINGERPRINTS_H_

#include <string>
#include <vector>

#include "clients/experiments/experiment.h"
#include "clients/experiments/metric_tokens.h"

namespace mechinterp {

// What the results of any experiment depend on: model, quantization, device,
// prompts and seed.
Fingerprint CommonFingerprint(const ExperimentContext& context, const std::string& experiment,
                              const std::vector<PromptPair>& pairs);

void AddOpenings(const Openings& openings, Fingerprint& fingerprint);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_FINGERPRINTS_H_
