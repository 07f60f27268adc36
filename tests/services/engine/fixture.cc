#include "tests/services/engine/fixture.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>

#include "nlohmann/json.hpp"

namespace mechinterp::engine {
namespace {

using nlohmann::json;

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << value.status() << std::endl;
    std::abort();
  }
  return *std::move(value);
}

Intervention ParseIntervention(const Fixture& fixture, const json& spec) {
  Intervention intervention;
  intervention.site = MatchingSites(spec["site"].get<std::string>(), fixture.model()->config()).at(0);
  if (spec.contains("heads")) intervention.selector.heads = spec["heads"].get<std::vector<int>>();
  if (spec.contains("neurons")) intervention.selector.dims = spec["neurons"].get<std::vector<int>>();
  if (spec.contains("positions")) {
    intervention.selector.positions.indices = spec["positions"].get<std::vector<int>>();
  }
  const std::string kind = spec["kind"];
  auto named_prompt = [&](const char* key) { return fixture.prompt(spec[key].get<std::string>()); };
  auto direction = [&] { return fixture.expected(spec["direction"].get<std::string>()); };
  if (kind == "replace") {
    intervention.edit = Replacement{{named_prompt("source"), {}, {}, {}}};
  } else if (kind == "zero") {
    intervention.edit = Zeroing{};
  } else if (kind == "mean") {
    intervention.edit =
        MeanReplacement{{{named_prompt("mean_of"), {}, {}, {}}}, MeanAxis::kSourcesAndPositions};
  } else if (kind == "add") {
    intervention.edit = Addition{direction(), spec["scale"].get<double>()};
  } else if (kind == "project_out") {
    intervention.edit = ProjectionRemoval{direction()};
  } else {
    std::cerr << "unknown kind " << kind << std::endl;
    std::abort();
  }
  return intervention;
}

}  // namespace

std::string TestData(const std::string& name) {
  return std::string(ABSTRACT_SOURCE_DIR) + "/tests/testdata/" + name;
}

Fixture::Fixture(const std::string& name) {
  const std::string directory = TestData(name);
  LoadOptions options;
  options.round_rope_frequencies_to_bfloat16 = name == "llama31-rope-scaled";
  options.compute_type = NumberFormat::kFloat32;
  options.head = kUnquantized;
  model_ = Must(Model::Load(directory, options));
  expected_ = Must(SafetensorsFile::Open(directory + "/expected.safetensors"));
  const json document = json::parse(std::ifstream(directory + "/cases.json"));
  if (!document.contains("prompts")) return;
  for (const auto& [prompt_name, ids] : document["prompts"].items()) {
    prompts_.emplace_back(prompt_name, TokenizedPrompt{ids.get<std::vector<TokenId>>(), {}});
  }
  for (const json& spec : document["cases"]) {
    Case test_case{spec["name"], {spec["prompt"].get<std::vector<TokenId>>(), {}}, {}, {}};
    for (const json& intervention : spec["interventions"]) {
      test_case.interventions.push_back(ParseIntervention(*this, intervention));
    }
    if (spec.contains("greedy")) test_case.greedy = spec["greedy"].get<std::vector<TokenId>>();
    cases_.push_back(std::move(test_case));
  }
}

TokenizedPrompt Fixture::prompt(const std::string& name) const {
  for (const auto& [prompt_name, prompt] : prompts_) {
    if (prompt_name == name) return prompt;
  }
  std::abort();
}

HostTensor Fixture::expected(const std::string& name) const {
  const TensorView* view = expected_->Find(name);
  if (view == nullptr) {
    std::cerr << "no reference value " << name << std::endl;
    std::abort();
  }
  return Must(ToHostTensor(*view));
}

double MaxDifference(const HostTensor& a, const HostTensor& b) {
  if (a.shape != b.shape) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    if (a.values[i] == b.values[i]) continue;  // infinities too
    const double difference = std::abs(double{a.values[i]} - b.values[i]);
    largest =
        std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(largest, difference);
  }
  return largest;
}

}  // namespace mechinterp::engine
