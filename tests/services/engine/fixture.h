#ifndef TESTS_SERVICES_ENGINE_FIXTURE_H_
#define TESTS_SERVICES_ENGINE_FIXTURE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/engine/checkpoint/safetensors.h"
#include "services/engine/interventions/intervention.h"
#include "services/engine/model.h"

namespace mechinterp::engine {

// A checkpoint of tests/testdata with what the reference implementation
// (Hugging Face transformers, eager attention, fp32) computed on it.
class Fixture {
 public:
  struct Case {
    std::string name;
    TokenizedPrompt prompt;
    InterventionSet interventions;
    std::optional<std::vector<TokenId>> greedy;
  };

  // Aborts the test program when the fixture is not there. The bf16 fixture was
  // computed with its rotary frequencies cast to bf16 along with the weights.
  explicit Fixture(const std::string& name);

  const std::shared_ptr<const Model>& model() const { return model_; }
  TokenizedPrompt prompt(const std::string& name) const;
  const std::vector<Case>& cases() const { return cases_; }
  // Reference values by name: "a/blocks.0.attn.hook_q", "case/clean/logits".
  HostTensor expected(const std::string& name) const;
  const SafetensorsFile& expected_file() const { return *expected_; }

 private:
  std::shared_ptr<const Model> model_;
  std::vector<std::pair<std::string, TokenizedPrompt>> prompts_;
  std::vector<Case> cases_;
  std::shared_ptr<const SafetensorsFile> expected_;
};

// Path of a file or folder under tests/testdata.
std::string TestData(const std::string& name);

// Largest absolute difference; infinity when the shapes differ.
double MaxDifference(const HostTensor& a, const HostTensor& b);

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_FIXTURE_H_
