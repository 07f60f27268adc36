// The packed forward pass, generation and sweeps against a plain second
// implementation, on random models and requests.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/sweep.h"
#include "tests/services/engine/naive_llama.h"
#include "tests/services/engine/random_checkpoint.h"
#include "tests/services/engine/random_requests.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

struct Case {
  unsigned seed;
  bool by_libtorch;  // as on devices other than the CPU
  RandomFamily family;
  std::string name;
};

LoadOptions Options(const Case& test_case) {
  LoadOptions options;
  options.device.by_libtorch = test_case.by_libtorch;
  return options;
}

class NaiveAgreement : public testing::TestWithParam<Case> {
 protected:
  RandomCheckpoint checkpoint_{GetParam().seed, GetParam().family};
  std::shared_ptr<const Model> model_ = *Model::Load(checkpoint_.directory(), Options(GetParam()));
  NaiveLlama naive_{checkpoint_.directory(), model_->config()};
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
  RandomRequests random_{model_->config(), GetParam().seed + 1000};

  std::vector<std::shared_ptr<const HookPlan>> Plans(const TokenizedPrompt& prompt,
                                                     const std::vector<InterventionSet>& sets,
                                                     const CaptureRequest& capture = {}) {
    Violations list;
    PlanCompiler compiler(model_->config());
    for (const InterventionSet& set : sets) compiler.Add(prompt, set, capture, list.root());
    for (const Violation& violation : list.list())
      ADD_FAILURE() << violation.field << ": " << violation.description;
    return *RunSourcesAndFinish(context_, compiler);
  }

  // The CPU's kernels promise the same bits; libtorch's promise nothing.
  static void ExpectSame(std::optional<double> actual, std::optional<double> expected,
                         const std::string& what) {
    if (GetParam().by_libtorch && actual && expected) {
      EXPECT_NEAR(*actual, *expected, 1e-4 * std::max(1.0, std::abs(*expected))) << what;
    } else {
      EXPECT_EQ(actual, expected) << what;
    }
  }

  static void ExpectNear(const std::vector<double>& expected, const float* actual, const std::string& what) {
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::isinf(expected[i])) {
        ASSERT_EQ(actual[i], expected[i]) << what;
      } else {
        ASSERT_NEAR(actual[i], expected[i], 1e-4 * std::max(1.0, std::abs(expected[i])))
            << what << " at " << i;
      }
    }
  }
};

TEST_P(NaiveAgreement, EverySiteOfABatchWithHookPlans) {
  constexpr int kSegments = 4;
  std::vector<Segment> segments(kSegments);
  std::vector<Segment*> pointers;
  std::vector<InterventionSet> sets;
  for (int i = 0; i < kSegments; ++i) {
    const TokenizedPrompt prompt = random_.Prompt(3 + random_.Int(8));
    sets.push_back(random_.Interventions(prompt, i));  // the first has none
    segments[i].tokens = prompt.ids;
    segments[i].plan = Plans(prompt, {sets[i]}, {AllSites(model_->config()), {}})[0];
    pointers.push_back(&segments[i]);
  }
  ASSERT_THAT(executor_.Run(pointers, nullptr), IsOk());
  for (int i = 0; i < kSegments; ++i) {
    const auto expected = naive_.Run(segments[i].tokens, segments[i].length(), sets[i]);
    for (const HookSite& site : AllSites(model_->config())) {
      const HostTensor& ours = segments[i].activations.at(site).values;
      const float* row = ours.values.data();
      for (const auto& heads : expected.at(site)) {
        for (const auto& values : heads) {
          ExpectNear(values, row, SiteName(site) + " of segment " + std::to_string(i));
          if (HasFatalFailure()) return;
          row += values.size();
        }
      }
      EXPECT_EQ(row, ours.values.data() + ours.values.size());
    }
  }
}

TEST_P(NaiveAgreement, CapturesOnlyTheSelectedPositions) {
  const TokenizedPrompt prompt = random_.Prompt(7);
  CaptureRequest capture{{{HookPoint::kResidPost, 0}, {HookPoint::kLogits, 0}, {HookPoint::kPattern, 0}}, {}};
  capture.positions.indices = {-2, 1};
  const auto run = RunWithCache(context_, prompt, Plans(prompt, {{}}, capture)[0]);
  ASSERT_THAT(run, IsOk());
  const auto expected = naive_.Run(prompt.ids, prompt.length());
  for (const HookSite& site : capture.sites) {
    const RecordedActivation& ours = (*run)->activations.at(site);
    EXPECT_THAT(ours.positions, testing::ElementsAre(1, 5));
    const float* row = ours.values.values.data();
    for (int position : ours.positions) {
      for (const auto& values : expected.at(site)[position]) {
        ExpectNear(values, row, SiteName(site));
        row += values.size();
      }
    }
  }
}

// Greedy decoding with the cache is what repeated whole passes give.
TEST_P(NaiveAgreement, GenerationWithInterventionsInForce) {
  for (int round = 0; round < 4; ++round) {
    const TokenizedPrompt prompt = random_.Prompt(3 + random_.Int(5));
    const InterventionSet set = random_.Interventions(prompt, 2);
    const PrefillRequest request{prompt, Plans(prompt, {set})[0]};
    auto prefilled = Prefill(context_, {request});
    ASSERT_THAT(prefilled, IsOk());
    SamplingOptions options;
    options.max_new_tokens = 5;
    options.ignore_stop_tokens = true;
    std::vector<double> log_probabilities;
    const auto generation = Continue(context_, prefilled->front(), options, [&](const ChosenToken& token) {
      log_probabilities.push_back(token.log_probability);
      return absl::OkStatus();
    });
    ASSERT_THAT(generation, IsOk());
    std::vector<TokenId> tokens = prompt.ids;
    for (size_t step = 0; step < generation->ids.size(); ++step) {
      const auto activations = naive_.Run(tokens, prompt.length(), set);
      const std::vector<double>& logits = activations.at({HookPoint::kLogits, 0}).back().front();
      const TokenId ours = generation->ids[step];
      const double best = *std::max_element(logits.begin(), logits.end());
      EXPECT_NEAR(logits[ours], best, 1e-4) << "step " << step;
      double total = 0;
      for (double logit : logits) total += std::exp(logit - best);
      EXPECT_NEAR(log_probabilities[step], logits[ours] - best - std::log(total), 1e-4);
      tokens.push_back(ours);
    }
  }
}

// Late entry, short suffixes and packing change nothing: the sweep's numbers are
// those of one whole pass per set, to the last bit.
TEST_P(NaiveAgreement, SweepEqualsOneForwardPassPerSet) {
  const TokenizedPrompt prompt = random_.Prompt(9), source = random_.Prompt(9);
  std::vector<InterventionSet> sets = {{}};
  for (int i = 0; i < 30; ++i) sets.push_back(random_.Interventions(prompt, 1 + random_.Int(2)));
  SweepRequest request{prompt, Plans(prompt, sets), {}, source};
  request.metrics.refusal_token_ids = {1, 2};
  request.metrics.compliance_token_ids = {3};
  request.metrics.refusal_openings = {{1}, {2, 5, 7}};
  request.metrics.compliance_openings = {{3, 4}};
  request.metrics.top_token_count = 3;

  std::vector<std::optional<SweepResult>> results(sets.size());
  SweepBaselines baselines;
  const SweepSink sink{[&](const SweepBaselines& b) {
                         baselines = b;
                         return absl::OkStatus();
                       },
                       [&](const SweepResult& result) {
                         results[result.set_index] = result;
                         return absl::OkStatus();
                       }};
  const auto totals = RunPatchSweep(context_, request, sink);
  ASSERT_THAT(totals, IsOk());
  EXPECT_LT(totals->computed_token_layers,
            totals->naive_token_layers + 4 * 9 * model_->config().layer_count());

  const PrefillRequest clean{prompt, nullptr};
  auto clean_run = Prefill(context_, {clean});
  for (size_t i = 0; i < sets.size(); ++i) {
    ASSERT_TRUE(results[i].has_value()) << "no result for set " << i;
    const PrefillRequest whole{prompt, request.plans[i]};
    auto run = Prefill(context_, {whole});
    ASSERT_THAT(run, IsOk());
    const RunMetrics expected =
        MeasureLogits(run->front().logits.values, clean_run->front().logits.values, request.metrics);
    ExpectSame(results[i]->metrics.logit_difference, expected.logit_difference, "set " + std::to_string(i));
    ExpectSame(results[i]->metrics.kl_from_clean, expected.kl_from_clean, "set " + std::to_string(i));
    ExpectSame(results[i]->metrics.top_tokens[0].logit, expected.top_tokens[0].logit,
               "set " + std::to_string(i));
    ExpectSame(results[i]->effect, Effect(expected, baselines.clean, *baselines.source),
               "set " + std::to_string(i));

    // Against the plain implementation, the openings too.
    auto opening = [&](std::vector<std::vector<TokenId>> openings) {
      double total = 0;
      for (const auto& tokens : openings) {
        std::vector<TokenId> all = prompt.ids;
        all.insert(all.end(), tokens.begin(), tokens.end());
        const auto logits = naive_.Run(all, prompt.length(), sets[i]).at({HookPoint::kLogits, 0});
        double log_probability = 0;
        for (size_t k = 0; k < tokens.size(); ++k) {
          const auto& row = logits[prompt.length() - 1 + k].front();
          double sum = 0;
          for (double logit : row) sum += std::exp(logit);
          log_probability += row[tokens[k]] - std::log(sum);
        }
        total += std::exp(log_probability);
      }
      return std::log(total);
    };
    EXPECT_NEAR(*results[i]->metrics.refusal_opening_log_probability,
                opening(request.metrics.refusal_openings), 2e-3);
    EXPECT_NEAR(*results[i]->metrics.compliance_opening_log_probability,
                opening(request.metrics.compliance_openings), 2e-3);
  }
}

// A request's numbers do not depend on what else is in the batch.
// With edits in force in every run, a run is one forward pass with those and its own.
TEST_P(NaiveAgreement, SweepOnABaseEqualsOneForwardPassWithBoth) {
  const TokenizedPrompt prompt = random_.Prompt(9);
  const InterventionSet base = random_.Interventions(prompt, 2);
  std::vector<InterventionSet> sets = {{}};
  for (int i = 0; i < 20; ++i) sets.push_back(random_.Interventions(prompt, 1 + random_.Int(2)));
  SweepRequest request{prompt, Plans(prompt, sets), {}, {}};
  request.base = Plans(prompt, {base})[0];
  request.metrics.refusal_openings = {{1}, {2, 5}};
  request.metrics.top_token_count = static_cast<int>(model_->config().vocabulary_size);
  std::optional<SweepBaselines> baselines;
  std::map<int, RunMetrics> results;
  const SweepSink sink{[&](const SweepBaselines& b) {
                         baselines = b;
                         return absl::OkStatus();
                       },
                       [&](const SweepResult& result) {
                         results[result.set_index] = result.metrics;
                         return absl::OkStatus();
                       }};
  ASSERT_THAT(RunPatchSweep(context_, request, sink), IsOk());
  const auto expect = [&](const RunMetrics& metrics, const InterventionSet& all, const std::string& what) {
    const std::vector<double> expected = naive_.LastLogits(prompt.ids, all);
    for (const TokenProbability& token : metrics.top_tokens) {
      EXPECT_NEAR(token.logit, expected[token.id], 1e-4 * std::max(1.0, std::abs(expected[token.id])))
          << what;
    }
    // Generated positions have the base's edits too.
    std::vector<TokenId> continued = prompt.ids;
    continued.insert(continued.end(), {2, 5});
    const auto logits = naive_.Run(continued, prompt.length(), all).at({HookPoint::kLogits, 0});
    const auto probability = [&](int row, TokenId id) {
      double sum = 0;
      for (const double logit : logits[row].front()) sum += std::exp(logit);
      return std::exp(logits[row].front()[id]) / sum;
    };
    const int last = prompt.length() - 1;
    const double begun = probability(last, 1) + probability(last, 2) * probability(last + 1, 5);
    EXPECT_NEAR(*metrics.refusal_opening_log_probability, std::log(begun), 2e-3) << what;
  };
  expect(baselines->clean, base, "the base");
  ASSERT_EQ(results.size(), sets.size());
  for (size_t i = 0; i < sets.size(); ++i) {
    InterventionSet both = base;
    both.insert(both.end(), sets[i].begin(), sets[i].end());
    expect(results.at(static_cast<int>(i)), both, "set " + std::to_string(i));
  }
}

TEST_P(NaiveAgreement, ResultsAreBitIdenticalAloneAndInABatch) {
  std::vector<Segment> together(6);
  std::vector<Segment*> pointers;
  for (Segment& segment : together) {
    const TokenizedPrompt prompt = random_.Prompt(1 + random_.Int(12));
    segment.tokens = prompt.ids;
    segment.plan = Plans(prompt, {random_.Interventions(prompt, 1)})[0];
    segment.logits_rows = LogitsRows::kAll;
    pointers.push_back(&segment);
  }
  ASSERT_THAT(executor_.Run(pointers, nullptr), IsOk());
  for (const Segment& segment : together) {
    Segment alone;
    alone.tokens = segment.tokens;
    alone.plan = segment.plan;
    alone.logits_rows = LogitsRows::kAll;
    Segment* const one[] = {&alone};
    ASSERT_THAT(executor_.Run(one, nullptr), IsOk());
    ASSERT_EQ(alone.logits.values.size(), segment.logits.values.size());
    for (size_t i = 0; i < alone.logits.values.size(); ++i) {
      ExpectSame(alone.logits.values[i], segment.logits.values[i], "logit " + std::to_string(i));
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (unsigned seed = 0; seed < 16; ++seed) {
    cases.push_back(Case{seed, false, {}, {}});
    if (seed < 8) cases.push_back(Case{seed, true, {}, {}});
  }
  const std::pair<std::string, RandomFamily> families[] = {
      {"LlamaWithBiases", {"LlamaForCausalLM", true, 0}},
      {"MistralWithWindow", {"MistralForCausalLM", false, 4}},
      {"Qwen2", {"Qwen2ForCausalLM", false, 0}},
      {"Qwen2WithWindow", {"Qwen2ForCausalLM", false, 3}},
      {"Qwen3", {"Qwen3ForCausalLM", false, 0}},
      {"LinearRope", {.rope_scaling = R"({"type": "linear", "factor": 4})"}},
      // Prompts and what continues them are longer than its context was.
      {"DynamicRope", {.rope_scaling = R"({"type": "dynamic", "factor": 16})", .max_positions = 4}},
      {"YarnRope",
       {.rope_scaling =
            R"({"type": "yarn", "factor": 4, "original_max_position_embeddings": 16, "beta_fast": 2,
                            "truncate": false})"}},
      {"Llama3Rope",
       {.rope_scaling = R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                            "original_max_position_embeddings": 32})"}},
  };
  for (const auto& [name, family] : families) {
    for (unsigned seed = 0; seed < 4; ++seed) cases.push_back(Case{seed, seed == 3, family, name});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(RandomModels, NaiveAgreement, testing::ValuesIn(Cases()), [](const auto& info) {
  return info.param.name + (info.param.by_libtorch ? "Libtorch" : "Kernels") +
         std::to_string(info.param.seed);
});

}  // namespace
}  // namespace mechinterp::engine
