#ifndef TESTS_SERVICES_ENGINE_NAIVE_LLAMA_H_
#define TESTS_SERVICES_ENGINE_NAIVE_LLAMA_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/engine/interventions/intervention.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// A second, plain implementation of the model and of interventions, to hold the
// engine against: one sequence at a time, whole forward passes, loops in double
// precision, no key/value caches, no batches, no plans. Not thread-safe. Shares nothing with the engine but
// the types that say what is asked.
class NaiveLlama {
 public:
  // [T][heads][width]
  using Activation = std::vector<std::vector<std::vector<double>>>;
  using Activations = std::map<HookSite, Activation>;

  // Reads a single-file fp32 checkpoint.
  NaiveLlama(const std::string& directory, const ModelConfig& config);

  // The activations of every site; positions from prompt_length on count as
  // generated. Scores and patterns are [query][head][key].
  Activations Run(const std::vector<TokenId>& tokens, int prompt_length,
                  const InterventionSet& interventions = {}) const;
  // Logits of the last row.
  std::vector<double> LastLogits(const std::vector<TokenId>& tokens,
                                 const InterventionSet& interventions) const;

 private:
  struct Pass;
  const Activations& CleanRun(const std::vector<TokenId>& tokens) const;
  const std::vector<float>& Weight(const std::string& name) const { return weights_.at(name); }

  ModelConfig config_;
  std::map<std::string, std::vector<float>> weights_;
  // Of prompts that edits read, kept for the next row that reads them.
  mutable std::map<std::vector<TokenId>, Activations> clean_runs_;
};

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_NAIVE_LLAMA_H_
