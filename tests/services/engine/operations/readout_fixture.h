#ifndef TESTS_SERVICES_ENGINE_OPERATIONS_READOUT_FIXTURE_H_
#define TESTS_SERVICES_ENGINE_OPERATIONS_READOUT_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "services/engine/operations/cached_run.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {

// How a checkpoint of tests/testdata is served.
struct ServedFixture {
  const char* name;
  bool by_libtorch = false;
  Quantization quantization = kUnquantized;
  NumberFormat compute_type = NumberFormat::kFloat32;
};

// A model and plain runs of it.
class ReadoutFixture {
 public:
  explicit ReadoutFixture(const ServedFixture& served) : model_(Load(served)) {}

  const ModelConfig& config() const { return model_->config(); }
  RunContext& context() { return context_; }

  std::shared_ptr<const HookPlan> PlanOf(const TokenizedPrompt& prompt, const InterventionSet& edits) {
    PlanCompiler compiler(config());
    Violations violations;
    compiler.Add(prompt, edits, {}, violations.root());
    EXPECT_TRUE(violations.empty());
    return (*RunSourcesAndFinish(context_, compiler)).front();
  }

  // The run's own logits [T, V].
  HostTensor LogitsOf(const TokenizedPrompt& prompt, std::shared_ptr<const HookPlan> plan = nullptr) {
    Segment segment;
    segment.tokens = prompt.ids;
    segment.plan = std::move(plan);
    segment.logits_rows = LogitsRows::kAll;
    Segment* const segments[] = {&segment};
    EXPECT_THAT(context_.Run(segments), IsOk());
    return std::move(segment.logits);
  }
  // Its activations at a site.
  std::vector<float> ActivationsOf(const TokenizedPrompt& prompt, const HookSite& site,
                                   const HookPlan* plan = nullptr) {
    std::vector<int> positions;
    for (int i = 0; i < prompt.length(); ++i) positions.push_back(i);
    Segment segment;
    segment.tokens = prompt.ids;
    segment.plan = WithCaptures(plan, prompt.length(), {site}, positions);
    Segment* const segments[] = {&segment};
    EXPECT_THAT(context_.Run(segments), IsOk());
    return segment.activations.at(site).values.values;
  }

 private:
  static std::shared_ptr<const Model> Load(const ServedFixture& served) {
    LoadOptions options;
    options.compute_type = served.compute_type;
    options.quantization = served.quantization;
    options.head = served.quantization.has_value() ? Quantization(NumberFormat::kInt8) : kUnquantized;
    options.device.by_libtorch = served.by_libtorch;
    return *Model::Load(TestData(served.name), options);
  }

  std::shared_ptr<const Model> model_;
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
};

// The reference of tests/testdata/attribution.
struct ReadoutReference {
  explicit ReadoutReference(const std::string& name)
      : tensors(*SafetensorsFile::Open(TestData("attribution/" + name + ".safetensors"))),
        document(nlohmann::json::parse(std::ifstream(TestData("attribution/" + name + ".json")))) {}

  std::vector<TokenId> Ids(const char* field) const { return document[field].get<std::vector<TokenId>>(); }

  std::shared_ptr<const SafetensorsFile> tensors;
  nlohmann::json document;
};

inline TokenizedPrompt PromptOfLength(int length) {
  TokenizedPrompt prompt;
  for (int i = 0; i < length; ++i) prompt.ids.push_back((7 * i + 3) % 250);
  return prompt;
}

}  // namespace mechinterp::engine

#endif  // TESTS_SERVICES_ENGINE_OPERATIONS_READOUT_FIXTURE_H_
