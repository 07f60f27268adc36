// A segment in chunks gives what it gives in one pass, to the last bit.

#include "services/engine/forward/segment_chunks.h"

#include <gtest/gtest.h>

#include <array>

#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "tests/services/engine/random_checkpoint.h"
#include "tests/services/engine/random_requests.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

// Some by dynamic rope scaling, in which a prompt's angles depend on its length.
RandomFamily FamilyOf(unsigned seed) {
  if (seed % 3 != 2) return {};
  return {.rope_scaling = R"({"type": "dynamic", "factor": 16})", .max_positions = 4};
}

class ChunksOfRandomModels : public testing::TestWithParam<unsigned> {
 protected:
  RandomCheckpoint checkpoint_{GetParam(), FamilyOf(GetParam())};
  std::shared_ptr<const Model> model_ = *Model::Load(checkpoint_.directory());
  const ModelConfig& config_ = model_->config();
  DirectExecutor executor_{model_};
  RunContext context_{executor_, {}, {}};
  RandomRequests random_{config_, GetParam() + 2000};

  std::shared_ptr<const HookPlan> Plan(const TokenizedPrompt& prompt, const InterventionSet& set,
                                       const CaptureRequest& capture) {
    Violations list;
    PlanCompiler compiler(config_);
    compiler.Add(prompt, set, capture, list.root());
    EXPECT_TRUE(list.empty());
    return RunSourcesAndFinish(context_, compiler)->front();
  }

  // Every site, at some positions or all.
  CaptureRequest Capture(const TokenizedPrompt& prompt) {
    CaptureRequest capture;
    capture.sites = AllSites(config_);
    if (random_.Int(2) == 0) capture.positions.indices = {random_.Int(prompt.length()), -1};
    return capture;
  }

  void RunWhole(Segment& segment) {
    Segment* const one[] = {&segment};
    ASSERT_THAT(RunPass(*model_, one), IsOk());
  }

  // Returns the number of chunks.
  int RunInChunks(Segment& segment) {
    SegmentChunks chunks(&segment, config_);
    EXPECT_TRUE(chunks.CanSplit());
    int count = 0;
    while (chunks.rows_left() > 0) {
      Segment* const one[] = {chunks.Next(1 + random_.Int(std::min(7, chunks.rows_left())))};
      EXPECT_THAT(RunPass(*model_, one), IsOk());
      chunks.Collect();
      ++count;
    }
    return count;
  }

  static void ExpectSame(const Segment& whole, const Segment& chunked) {
    EXPECT_EQ(whole.logits.shape, chunked.logits.shape);
    EXPECT_EQ(whole.logits.values, chunked.logits.values);
    ASSERT_EQ(whole.activations.size(), chunked.activations.size());
    for (const auto& [site, recorded] : whole.activations) {
      const RecordedActivation& other = chunked.activations.at(site);
      EXPECT_EQ(recorded.positions, other.positions) << SiteName(site);
      EXPECT_EQ(recorded.values.shape, other.values.shape) << SiteName(site);
      EXPECT_EQ(recorded.values.values, other.values.values) << SiteName(site);
    }
  }

  static void ExpectSame(const KvCache& whole, const KvCache& chunked, int layers) {
    for (int layer = 0; layer < layers; ++layer) {
      ASSERT_EQ(whole.length(layer), chunked.length(layer));
      const int64_t size = whole.length(layer) * whole.row_size();
      EXPECT_TRUE(std::equal(whole.keys(layer), whole.keys(layer) + size, chunked.keys(layer)));
      EXPECT_TRUE(std::equal(whole.values(layer), whole.values(layer) + size, chunked.values(layer)));
    }
  }
};

TEST_P(ChunksOfRandomModels, PromptsWithEditsAndCaptures) {
  int chunk_count = 0;
  for (int round = 0; round < 6; ++round) {
    const TokenizedPrompt prompt = random_.Prompt(1 + random_.Int(30));
    Segment whole;
    whole.tokens = prompt.ids;
    whole.plan = Plan(prompt, random_.Interventions(prompt, round % 3), Capture(prompt));
    whole.logits_rows = static_cast<LogitsRows>(round % 3);
    if (round % 2 == 0) whole.cache = std::make_shared<KvCache>(config_);
    Segment chunked = whole;
    if (round % 2 == 0) chunked.cache = std::make_shared<KvCache>(config_);
    RunWhole(whole);
    chunk_count += RunInChunks(chunked);
    ExpectSame(whole, chunked);
    if (whole.cache != nullptr) ExpectSame(*whole.cache, *chunked.cache, config_.layer_count());
  }
  EXPECT_GT(chunk_count, 6);
}

// As sweeps make them: on top of a prefix, from what the whole run had where they enter.
TEST_P(ChunksOfRandomModels, LateEntriesOnASharedPrefix) {
  const TokenizedPrompt prompt = random_.Prompt(25);
  auto cache = std::make_shared<KvCache>(config_);
  Segment clean;
  clean.tokens = prompt.ids;
  clean.cache = cache;
  clean.logits_rows = LogitsRows::kAll;
  CaptureRequest starts{{}, {}};
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    for (HookPoint point : {HookPoint::kResidPre, HookPoint::kZ, HookPoint::kResidMid, HookPoint::kMlpPost}) {
      starts.sites.push_back({point, layer});
    }
  }
  clean.plan = Plan(prompt, {}, starts);
  RunWhole(clean);
  for (int i = 0; i < 3 * config_.layer_count(); ++i) {
    const int layer = i / 3, first = random_.Int(20);
    auto from_first = [&](HookPoint point) {
      const std::vector<float>& values = clean.activations.at({point, layer}).values.values;
      const int64_t width = ShapeOf(point, config_).size();
      return HostTensor{{25 - first, width}, {values.begin() + first * width, values.end()}};
    };
    Segment whole;
    whole.entry_layer = layer;
    whole.entry_point = std::array{HookPoint::kResidPre, HookPoint::kZ, HookPoint::kMlpPost}[i % 3];
    whole.residual = from_first(i % 3 == 2 ? HookPoint::kResidMid : HookPoint::kResidPre);
    if (i % 3 > 0) whole.branch = from_first(whole.entry_point);
    whole.first_position = first;
    whole.shared = cache;
    whole.shared_length = first;
    CaptureRequest capture = Capture(prompt);
    std::erase(capture.sites, HookSite{HookPoint::kEmbed, 0});  // there are no tokens
    whole.plan = Plan(prompt, {}, capture);
    whole.logits_rows = LogitsRows::kAll;
    Segment chunked = whole;
    RunWhole(whole);
    EXPECT_TRUE(
        std::equal(whole.logits.values.rbegin(), whole.logits.values.rend(), clean.logits.values.rbegin()));
    RunInChunks(chunked);
    ExpectSame(whole, chunked);
  }
}

// Their rows are as long in a chunk as in the whole, so that an edit may name a key to come, and a
// product over a row has as many terms.
TEST_P(ChunksOfRandomModels, ScoresAndPatternsWithEdits) {
  const int length = 24;
  const TokenizedPrompt prompt = random_.Prompt(length);
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    for (HookPoint point : {HookPoint::kAttnScores, HookPoint::kPattern}) {
      const auto at_site = [&](auto edit) {
        Intervention intervention;
        intervention.site = {point, layer};
        intervention.edit = std::move(edit);
        return intervention;
      };
      HostTensor direction{{length}, std::vector<float>(length)};
      for (float& value : direction.values) value = static_cast<float>(1 + random_.Int(9));
      Intervention of_one_key = at_site(Zeroing{});
      of_one_key.selector.dims = {length / 2};
      std::vector<std::vector<Intervention>> plans = {{at_site(Scaling{0.5})}, {of_one_key}};
      // Scores that are hidden are -infinity, and no product with a direction is finite.
      if (point == HookPoint::kPattern) plans.push_back({at_site(ProjectionRemoval{direction})});
      for (const std::vector<Intervention>& interventions : plans) {
        Segment whole;
        whole.tokens = prompt.ids;
        whole.plan = Plan(prompt, interventions, {AllSites(config_), {}});
        whole.logits_rows = LogitsRows::kAll;
        Segment chunked = whole;
        RunWhole(whole);
        EXPECT_GT(RunInChunks(chunked), 1);
        ExpectSame(whole, chunked);
      }
    }
  }
}

// Puts every prompt through in chunks, as the scheduler does.
class ChunkingExecutor : public Executor {
 public:
  explicit ChunkingExecutor(std::shared_ptr<const Model> model) : model_(std::move(model)) {}
  absl::Status Run(absl::Span<Segment* const> segments, absl::Duration*) override {
    for (Segment* segment : segments) {
      SegmentChunks chunks(segment, model_->config());
      while (chunks.rows_left() > 0) {
        Segment* const one[] = {chunks.Next(std::min(3, chunks.rows_left()))};
        if (absl::Status status = RunPass(*model_, one); !status.ok()) return status;
        chunks.Collect();
      }
    }
    return absl::OkStatus();
  }
  const Model& model() const override { return *model_; }
  int preferred_batch_rows() const override { return 8; }

 private:
  std::shared_ptr<const Model> model_;
};

TEST_P(ChunksOfRandomModels, ContinuationsAreTheSame) {
  ChunkingExecutor chunking(model_);
  RunContext in_chunks{chunking, {}, {}};
  const TokenizedPrompt prompt = random_.Prompt(20);
  const PrefillRequest request{prompt, Plan(prompt, random_.Interventions(prompt, 1), {}), 3};
  SamplingOptions options;
  options.max_new_tokens = 8;
  options.ignore_stop_tokens = true;
  options.temperature = 1;
  std::vector<std::pair<TokenId, double>> sent[2];
  for (RunContext* context : {&context_, &in_chunks}) {
    auto prefilled = Prefill(*context, {request});
    ASSERT_THAT(prefilled, IsOk());
    auto& mine = sent[context == &in_chunks];
    const auto generation = Continue(*context, prefilled->front(), options, [&](const ChosenToken& token) {
      mine.emplace_back(token.id, token.log_probability);
      return absl::OkStatus();
    });
    ASSERT_THAT(generation, IsOk());
    EXPECT_EQ(mine.size(), 8u);
  }
  EXPECT_EQ(sent[0], sent[1]);
}

INSTANTIATE_TEST_SUITE_P(RandomModels, ChunksOfRandomModels, testing::Range(0u, 12u));

// Wherever a pass is abandoned, its segment can be run again and gives the same.
TEST(AbandonedPass, LeavesItsSegmentAsItWas) {
  const RandomCheckpoint checkpoint(3);
  const auto model = *Model::Load(checkpoint.directory());
  auto run = [&](Segment& segment, int layers) {
    Segment* const segments[] = {&segment};
    return RunPass(*model, segments, [&] { return layers-- == 0; });
  };
  auto segment = [&] {
    Segment fresh;
    fresh.tokens = {1, 2, 3};
    fresh.cache = std::make_shared<KvCache>(model->config());
    fresh.logits_rows = LogitsRows::kAll;
    return fresh;
  };
  Segment whole = segment();
  ASSERT_THAT(run(whole, -1), IsOk());
  for (int layers = 0; layers < model->config().layer_count(); ++layers) {
    Segment stopped = segment();
    EXPECT_EQ(run(stopped, layers).code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(stopped.cache->length(0), 0);
    ASSERT_THAT(run(stopped, -1), IsOk());
    EXPECT_EQ(stopped.logits.values, whole.logits.values);
  }
}

// A chunk whose pass failed is taken back, and runs again as if nothing had been.
TEST(AbandonedPass, ChunksThatFailedRunAgain) {
  const RandomCheckpoint checkpoint(5);
  const auto model = *Model::Load(checkpoint.directory());
  auto plan = std::make_shared<HookPlan>();
  plan->prompt_length = 7;
  const HookSite first{HookPoint::kResidPost, 0}, logits{HookPoint::kLogits, 0};
  plan->captures = {{first, {first, {1, 2, 4, 5, 6}}}, {logits, {logits, {0, 3, 6}}}};
  auto run = [&](int failures_of_each_chunk) {
    auto segment = std::make_unique<Segment>();
    segment->tokens = {1, 2, 3, 4, 5, 6, 7};
    segment->plan = plan;
    segment->logits_rows = LogitsRows::kAll;
    SegmentChunks chunks(segment.get(), model->config());
    while (chunks.rows_left() > 0) {
      const int rows = std::min(3, chunks.rows_left());
      for (int i = 0; i < failures_of_each_chunk; ++i) {
        Segment* const one[] = {chunks.Next(rows)};
        int layers = model->config().layer_count() - 1;  // at the last, when much is recorded
        EXPECT_FALSE(RunPass(*model, one, [&] { return layers-- == 0; }).ok());
        chunks.TakeBack();
      }
      Segment* const one[] = {chunks.Next(rows)};
      EXPECT_THAT(RunPass(*model, one), IsOk());
      chunks.Collect();
    }
    return segment;
  };
  const auto straight = run(0), stumbling = run(2);
  EXPECT_EQ(stumbling->logits.values, straight->logits.values);
  for (const HookSite& site : {first, logits}) {
    EXPECT_EQ(stumbling->activations.at(site).positions, straight->activations.at(site).positions);
    EXPECT_EQ(stumbling->activations.at(site).values.values, straight->activations.at(site).values.values);
  }
}

}  // namespace
}  // namespace mechinterp::engine
