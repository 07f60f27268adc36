#ifndef CLIENTS_EXPERIMENTS_COMPARE_H_
#define CLIENTS_EXPERIMENTS_COMPARE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/experiment.h"

namespace mechinterp {

struct ComparedPrompt {
  // Unique: "p01/harmful".
  std::string id;
  // As a person reads it.
  std::string text;
  v1::Prompt prompt;
};

struct CompareOptions {
  std::vector<ComparedPrompt> prompts;
  // The server that is held against the context's, which is the reference.
  ModelClient* other_client = nullptr;
  v1::GetModelResponse other_model;
  // Longest greedy continuation to compare; 0: none.
  int max_new_tokens = 0;
};

// How far another server's answers (of the same model quantized, on another
// device, ...) lie from the reference's, prompt by prompt: next-token
// distributions at every position, residual stream after every layer,
// perplexity, greedy continuations if asked for. The reference tokenizes; both
// get the same token ids.
//
// A prompt in work takes (V + layers x D) x 8 bytes a position (2 MiB for
// Llama-3-8B), `concurrency` of them at a time; only the measures are kept.
//
// Errors: InvalidArgument (no prompts), FailedPrecondition (models of different
// shapes; tokenizers or chat templates that read a prompt differently; a server
// that changes its model), DataLoss (values that are not finite).
absl::StatusOr<v1::CompareResults> RunCompare(const ExperimentContext& context,
                                              const CompareOptions& options);

// What the results depend on, for the journal. Two servers of one model can
// still compute differently, so the command adds their addresses.
Fingerprint CompareFingerprint(const ExperimentContext& context, const CompareOptions& options);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_COMPARE_H_
