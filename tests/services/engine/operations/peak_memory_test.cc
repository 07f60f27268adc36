// Every operation's memory estimate against the peak that it really takes: never below it, and
// at most a fifth above.

#include "tests/services/engine/operations/peak_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "absl/strings/string_view.h"
#include "data/make_checkpoint/random_weights.h"
#include "data/make_checkpoint/shape.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/forward/memory_use.h"
#include "services/engine/forward/tape.h"
#include "services/engine/interventions/sweep_grid.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/operations/attribution.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/circuit_run.h"
#include "services/engine/operations/direct_attribution.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/logit_lens.h"
#include "services/engine/operations/mean_activations.h"
#include "services/engine/operations/patch_run.h"
#include "services/engine/operations/run_metrics.h"
#include "services/engine/operations/sweep.h"
#include "services/engine/operations/text_scores.h"
#include "services/engine/weights/pass_scratch.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

// Large enough that what estimates leave out (token ids, text, the objects themselves) is
// little beside what they count.
ModelConfig Shape() {
  ModelConfig shape = *make_checkpoint::PresetShape("tiny");
  shape.layers.resize(6);
  shape.head_count = 8;
  shape.key_value_head_count = 4;
  shape.head_size = 32;
  shape.d_model = 256;
  shape.d_ff = 512;
  shape.vocabulary_size = 8192;
  shape.context_length = 1024;
  return shape;
}

std::shared_ptr<const Model> LoadRandomModel() {
  const std::string directory =
      (std::filesystem::temp_directory_path() / ("abstract-peak-memory-" + std::to_string(::getpid())))
          .string();
  const ModelConfig shape = Shape();
  std::vector<TensorSource> tensors;
  for (const TensorInfo& tensor : ModelTensors(shape)) {
    tensors.push_back(make_checkpoint::RandomTensor(tensor.name, tensor.shape, NumberFormat::kFloat32, 1));
  }
  const auto files = make_checkpoint::ConfigFiles(shape, NumberFormat::kFloat32);
  EXPECT_THAT(WriteCheckpoint(directory, tensors, *files), IsOk());
  auto model = Model::Load(directory);
  EXPECT_THAT(model, IsOk());
  std::filesystem::remove_all(directory);  // what is mapped stays
  return *model;
}

TokenizedPrompt PromptOf(int length) {
  TokenizedPrompt prompt;
  for (int i = 0; i < length; ++i) prompt.ids.push_back(i * 7 % 8000);
  return prompt;
}

class PeakMemory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    kernels::SetThreadCount(2);
    model_ = new std::shared_ptr<const Model>(LoadRandomModel());
  }

  // Runs it twice: what passes keep for the next one is there by the second.
  void ExpectWithin(int64_t estimate, int64_t pass_rows, int64_t keys, absl::FunctionRef<void()> operation) {
    operation();
    const int64_t peak = PeakBytesOf(operation);
    const int64_t whole = estimate + PassBytes(config_, pass_rows, keys);
    EXPECT_GE(whole, peak);
    EXPECT_LE(static_cast<double>(whole), 1.2 * static_cast<double>(peak));
    RecordProperty("estimate", std::to_string(whole));
    RecordProperty("peak", std::to_string(peak));
    std::printf("estimate %.2f MiB, peak %.2f MiB, ratio %.3f\n", whole / 1048576.0, peak / 1048576.0,
                static_cast<double>(whole) / static_cast<double>(peak));
  }

  // One plan for each set, with what its edits read.
  std::vector<std::shared_ptr<const HookPlan>> Plans(PlanCompiler& compiler, const TokenizedPrompt& prompt,
                                                     const std::vector<InterventionSet>& sets,
                                                     const CaptureRequest& capture = {}) {
    Violations violations;
    for (const InterventionSet& set : sets) compiler.Add(prompt, set, capture, violations.root());
    for (const Violation& violation : violations.list()) ADD_FAILURE() << violation.description;
    return *RunSourcesAndFinish(context_, compiler);
  }

  void ExpectSweepWithin(const SweepGrid& grid, const MetricOptions& metrics, bool has_source) {
    Violations violations;
    const std::vector<InterventionSet> sets = ExpandGrid(grid, config_, prompt_, violations.root()).sets;
    int64_t estimate = 0;
    {
      PlanCompiler compiler(config_);
      Plans(compiler, prompt_, sets);
      estimate = RequestBytes(config_, compiler, executor_.preferred_batch_rows(),
                              SweepBytes(config_, prompt_.length(), has_source ? source_.length() : 0,
                                         compiler.EntryPoints(), metrics, executor_.preferred_batch_rows()));
    }
    ExpectWithin(estimate, executor_.preferred_batch_rows(), prompt_.length(), [&] {
      PlanCompiler compiler(config_);
      SweepRequest request{prompt_, Plans(compiler, prompt_, sets), metrics, {}};
      if (has_source) request.source_prompt = source_;
      const SweepSink sink{[](const SweepBaselines&) { return absl::OkStatus(); },
                           [](const SweepResult&) { return absl::OkStatus(); }};
      EXPECT_THAT(RunPatchSweep(context_, request, sink), IsOk());
    });
  }

  static std::shared_ptr<const Model>* model_;
  const ModelConfig& config_ = (*model_)->config();
  DirectExecutor executor_{*model_};
  RunContext context_{executor_, nullptr, absl::ZeroDuration()};
  const TokenizedPrompt prompt_ = PromptOf(200);
  const TokenizedPrompt source_ = PromptOf(180);
  const MetricOptions openings_{{1, 2}, {3}, {{1, 4, 5}, {2, 6}}, {{3, 7, 8, 9}}, 5};
};
std::shared_ptr<const Model>* PeakMemory::model_ = nullptr;

TEST_F(PeakMemory, Generation) {
  for (const double temperature : {0.0, 1.0}) {
    SamplingOptions options;
    options.max_new_tokens = 100;
    options.ignore_stop_tokens = true;
    options.temperature = temperature;
    options.top_p = 0.9;
    ExpectWithin(GenerationBytes(config_, prompt_.length(), 100, options), prompt_.length(), 300, [&] {
      const PrefillRequest request{prompt_, nullptr, 100};
      auto prefilled = Prefill(context_, {request});
      ASSERT_THAT(prefilled, IsOk());
      EXPECT_THAT(Continue(context_, prefilled->front(), options, nullptr), IsOk());
    });
  }
}

TEST_F(PeakMemory, MeasuredGeneration) {
  SamplingOptions options;
  options.max_new_tokens = 100;
  options.ignore_stop_tokens = true;
  const int64_t estimate =
      GenerationBytes(config_, prompt_.length(), 100, options) + MetricsBytes(config_, openings_);
  ExpectWithin(estimate, prompt_.length(), 300, [&] {
    const PrefillRequest request{prompt_, nullptr, 100};
    auto prefilled = Prefill(context_, {request});
    ASSERT_THAT(prefilled, IsOk());
    const Prefilled& run = prefilled->front();
    EXPECT_THAT(Continue(context_, prefilled->front(), options, nullptr), IsOk());
    const ReferenceDistribution clean(run.logits.values);
    EXPECT_THAT(MeasureRun(context_, {run.prompt, run.plan, run.cache, run.logits.values}, &clean, openings_),
                IsOk());
  });
}

TEST_F(PeakMemory, GenerationOfMoreTokensThanWereExpected) {
  SamplingOptions options;
  options.max_new_tokens = 250;
  options.ignore_stop_tokens = true;
  ExpectWithin(GrowingCacheBytes(config_, 200, 450) + 2 * 4 * config_.vocabulary_size, 200, 450, [&] {
    const PrefillRequest request{prompt_, nullptr, 0};
    auto prefilled = Prefill(context_, {request});
    ASSERT_THAT(prefilled, IsOk());
    EXPECT_THAT(Continue(context_, prefilled->front(), options, nullptr), IsOk());
  });
}

TEST_F(PeakMemory, CachedRuns) {
  for (const char* glob : {"*resid_pre", "*mlp.hook_post", "*.attn.hook_z", "*hook_result", "*hook_q_input",
                           "*hook_pattern", "*"}) {
    SCOPED_TRACE(glob);
    const CaptureRequest capture{MatchingSites(glob, config_), {}};
    PlanCompiler compiler(config_);
    Plans(compiler, prompt_, {{}}, capture);
    const int64_t estimate =
        RequestBytes(config_, compiler, executor_.preferred_batch_rows(),
                     ActivationBytes(config_, capture.sites, prompt_.length(), prompt_.length()));
    ExpectWithin(estimate, prompt_.length(), prompt_.length(), [&] {
      PlanCompiler compiler(config_);
      const auto plans = Plans(compiler, prompt_, {{}}, capture);
      EXPECT_THAT(RunWithCache(context_, prompt_, plans.front()), IsOk());
    });
  }
}

TEST_F(PeakMemory, PatchRuns) {
  SamplingOptions continuation;
  continuation.max_new_tokens = 40;
  continuation.ignore_stop_tokens = true;
  Intervention replacement{
      {HookPoint::kResidPre, 3}, {}, Replacement{{source_, {}, {}, PositionAlignment::kEnd}}};
  replacement.selector.positions.ranges = {{-150, std::nullopt}};
  const InterventionSet set = {replacement, {{HookPoint::kZ, 2}, {}, Zeroing{}}};
  for (const auto& [metrics, continued] :
       {std::pair(MetricOptions{{1}, {2}, {}, {}, 3}, std::optional<SamplingOptions>()),
        std::pair(openings_, std::optional<SamplingOptions>(continuation))}) {
    PlanCompiler compiler(config_);
    Plans(compiler, prompt_, {set});
    const int64_t estimate = RequestBytes(config_, compiler, executor_.preferred_batch_rows(),
                                          PatchRunBytes(config_, prompt_.length(), metrics, continued));
    ExpectWithin(estimate, 2 * prompt_.length(), prompt_.length(),
                 [&, &metrics = metrics, &continued = continued] {
                   PlanCompiler compiler(config_);
                   const auto plans = Plans(compiler, prompt_, {set});
                   EXPECT_THAT(RunWithPatch(context_, prompt_, plans.front(), metrics, continued), IsOk());
                 });
  }
}

TEST_F(PeakMemory, Attributions) {
  for (const AttributionMethod method : {AttributionMethod::kGradient, AttributionMethod::kGradDrop,
                                         AttributionMethod::kIntegratedGradients}) {
    for (const char* glob : {"*.attn.hook_z", "*mlp.hook_post", "*attn.hook_q"}) {
      for (const bool keeps_all_layers : {true, false}) {
        SCOPED_TRACE(testing::Message()
                     << glob << " " << static_cast<int>(method) << " " << keeps_all_layers);
        AttributionRequest request;
        request.clean = PromptOf(100);
        request.source = PromptOf(method == AttributionMethod::kIntegratedGradients ? 100 : 90);
        request.tokens.refusal_token_ids = {1};
        request.tokens.compliance_token_ids = {2};
        request.method = method;
        request.exact_softmax = absl::string_view(glob) == "*attn.hook_q";
        request.sites = MatchingSites(glob, config_);
        request.keeps_all_layers = keeps_all_layers;
        // The tape and the way back's slots are no memory of the heap; GradientPasses holds them.
        const int64_t rows = method == AttributionMethod::kIntegratedGradients ? 200 : 100;
        const int64_t slots =
            TapeBytes(config_, rows, keeps_all_layers) + GradientScratchBytes(config_, rows);
        ExpectWithin(AttributionBytes(config_, request, executor_.preferred_batch_rows()) - slots, 200, 200,
                     [&] { EXPECT_THAT(Attribute(context_, request), IsOk()); });
      }
    }
  }
}

TEST_F(PeakMemory, Circuits) {
  const std::vector<Sender> senders = Senders(config_);
  const int64_t all_readers = config_.head_count + 2 * config_.key_value_head_count;
  std::vector<Edge> few = {{senders[0], {Receiver::Kind::kMlp, 2, 0}},
                           {senders[1], {Receiver::Kind::kQuery, 4, 1}},
                           {senders[9 + 9 * 2], {}}};
  struct Case {
    Circuit circuit;
    int64_t senders, readers;
  };
  const Node head{Node::Kind::kHead, 1, 0};
  for (const Case& each :
       {Case{CircuitOfEdges(config_, few, false), 3, 1},
        Case{CircuitOfEdges(config_, few, true), static_cast<int64_t>(senders.size()), all_readers},
        Case{CircuitOfNodes(config_, {head}, true), static_cast<int64_t>(senders.size()), 3}}) {
    SCOPED_TRACE(each.senders);
    CircuitRequest request{PromptOf(100), PromptOf(100), 1, [&](int) { return each.circuit; }, {}};
    const CircuitSink sink{[](const CircuitBaselines&) { return absl::OkStatus(); },
                           [](const CircuitResult&) { return absl::OkStatus(); }};
    ExpectWithin(CircuitBytes(config_, 100, {}, each.senders, each.readers, executor_.preferred_batch_rows()),
                 200, 200, [&] { EXPECT_THAT(RunCircuits(context_, request, sink), IsOk()); });
  }
}

TEST_F(PeakMemory, GradientPasses) {
  for (const bool keeps_all_layers : {true, false}) {
    auto plan = std::make_shared<GradientPlan>();
    plan->metric = [](absl::Span<const float>, absl::Span<float> ones) {
      std::fill(ones.begin(), ones.end(), 1.0f);
    };
    plan->keeps_all_layers = keeps_all_layers;
    Segment segment;
    segment.tokens = prompt_.ids;
    segment.gradient = plan;
    Segment* const segments[] = {&segment};
    int64_t before = 0, most = 0;
    const auto look = [&] {
      most = std::max(most, CurrentMemoryUse().scratch);
      return false;
    };
    ASSERT_THAT(RunPass(**model_, segments, look), IsOk());
    before = CurrentMemoryUse().scratch;
    most = 0;
    ASSERT_THAT(RunPass(**model_, segments, look), IsOk());
    EXPECT_EQ(CurrentMemoryUse().scratch, before);  // nothing stays
    const int64_t estimate = TapeBytes(config_, prompt_.length(), keeps_all_layers) +
                             GradientScratchBytes(config_, prompt_.length());
    EXPECT_GE(estimate, most - before);
    EXPECT_LE(static_cast<double>(estimate), 1.2 * static_cast<double>(most - before));
  }
}

TEST_F(PeakMemory, LogitLenses) {
  for (const int positions : {1, 100}) {
    SCOPED_TRACE(positions);
    LensRequest request;
    request.prompt = prompt_;
    for (int i = 0; i < positions; ++i) request.positions.push_back(i + 50);
    request.metrics = {{1, 2}, {3}, {}, {}, 10};
    request.resid_mid = true;
    ExpectWithin(LensBytes(config_, request), prompt_.length(), prompt_.length(), [&] {
      EXPECT_THAT(RunLogitLens(context_, request, [](const LensReading&) { return absl::OkStatus(); }),
                  IsOk());
    });
  }
}

TEST_F(PeakMemory, MeansOverPrompts) {
  for (const int prompts : {1, 40}) {
    SCOPED_TRACE(prompts);
    MeanActivationsRequest request;
    const CaptureRequest capture = {
        {{HookPoint::kResidPre, 1}, {HookPoint::kMlpPost, 2}, {HookPoint::kLogits, 0}}, {}};
    PlanCompiler compiler(config_);
    Violations violations;
    const int length = prompts == 1 ? prompt_.length() : 20;
    for (int i = 0; i < prompts; ++i) {
      TokenizedPrompt prompt;
      for (int t = 0; t < length; ++t) prompt.ids.push_back((7 * i + t) % 100);
      request.prompts.push_back(prompt);
      compiler.Add(prompt, {}, capture, violations.root());
    }
    request.plans = compiler.Finish({});
    const std::vector<int> lengths(static_cast<size_t>(prompts), length);
    const int64_t estimate =
        MeanActivationsBytes(config_, capture.sites, length, lengths, /*batch_rows=*/256);
    ExpectWithin(estimate, std::min(256, prompts * length), length,
                 [&] { EXPECT_THAT(RunMeanActivations(context_, request), IsOk()); });
  }
}

TEST_F(PeakMemory, ScoresOfTexts) {
  for (const int texts : {1, 30}) {
    SCOPED_TRACE(texts);
    std::vector<TextToScore> all(static_cast<size_t>(texts));
    for (TextToScore& text : all) {
      text.prompt = prompt_;
      if (texts > 1) text.prompt.ids.resize(20);
    }
    ExpectWithin(TextScoreBytes(config_, all), texts == 1 ? 128 : 240, prompt_.length(), [&] {
      EXPECT_THAT(
          ScoreTexts(context_, all, [](size_t, const std::vector<double>&) { return absl::OkStatus(); }),
          IsOk());
    });
  }
}

TEST_F(PeakMemory, DirectAttributions) {
  for (const int neurons : {0, 20, 5000}) {
    SCOPED_TRACE(neurons);
    DirectAttributionRequest request;
    request.prompt = prompt_;
    request.positions = {100, prompt_.length() - 1};
    request.refusal_token_ids = {1};
    request.compliance_token_ids = {2};
    request.neuron_count = neurons;
    // The way back's slots are no memory of the heap. Most is taken beside passes of one row.
    ExpectWithin(DirectAttributionBytes(config_, request) - GradientScratchBytes(config_, 1), 1,
                 prompt_.length(), [&] {
                   EXPECT_THAT(AttributeDirectly(context_, request,
                                                 [](const DirectAttribution&) { return absl::OkStatus(); }),
                               IsOk());
                 });
  }
}

SweepGrid ReplaceAt(const TokenizedPrompt& source, std::vector<HookPoint> points, int last_positions) {
  SweepGrid grid;
  grid.prototype.edit = Replacement{{source, {}, {}, PositionAlignment::kEnd}};
  grid.prototype.selector.positions.ranges = {{-last_positions, std::nullopt}};
  grid.points = std::move(points);
  return grid;
}

TEST_F(PeakMemory, SweepsOverTheResidualStream) {
  SweepGrid grid = ReplaceAt(source_, {HookPoint::kResidPre}, 150);
  grid.split_positions = true;
  grid.layers = {0, 5};
  ExpectSweepWithin(grid, {{1}, {2}, {}, {}, 3}, false);
  ExpectSweepWithin(grid, openings_, true);
}

TEST_F(PeakMemory, SweepsOverHeadsAndNeurons) {
  SweepGrid heads = ReplaceAt(source_, {HookPoint::kZ}, 40);
  heads.split_heads = true;
  ExpectSweepWithin(heads, {{1}, {2}, {}, {}, 3}, true);
  ExpectSweepWithin(heads, openings_, false);
  SweepGrid neurons = ReplaceAt(source_, {HookPoint::kMlpPost}, 40);
  neurons.dims_per_group = 32;
  ExpectSweepWithin(neurons, {{1}, {2}, {}, {}, 3}, false);
}

TEST_F(PeakMemory, SweepsOverWholePrompts) {
  SweepGrid grid;
  grid.prototype.edit = Zeroing{};
  grid.points = {HookPoint::kAttnOut, HookPoint::kMlpOut};
  ExpectSweepWithin(grid, openings_, false);
}

}  // namespace
}  // namespace mechinterp::engine
