// Random checkpoints: of the right sizes, of the right distribution, and a model
// that the engine runs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "data/make_checkpoint/random_weights.h"
#include "data/make_checkpoint/shape.h"
#include "data/make_checkpoint/tokenizer_files.h"
#include "nlohmann/json.hpp"
#include "services/common/float16.h"
#include "services/engine/checkpoint/tensor_table.h"
#include "services/engine/model.h"
#include "services/engine/operations/cached_run.h"
#include "tests/status_matchers.h"

namespace mechinterp::make_checkpoint {
namespace {

namespace fs = std::filesystem;
using engine::ModelConfig;
using engine::NumberFormat;
using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kEmbeddedModel = ABSTRACT_SOURCE_DIR "/data/models/tiny-llama-refusal";

int64_t ParameterCount(const ModelConfig& shape) {
  int64_t count = 0;
  for (const engine::TensorInfo& tensor : engine::ModelTensors(shape)) {
    if (!tensor.optional) count += tensor.count();
  }
  return count;
}

// The parameter counts that Hugging Face shows for the published models.
TEST(PresetShape, HasTheSizesOfThePublishedModels) {
  EXPECT_EQ(ParameterCount(*PresetShape("llama3-8b")), 8'030'261'248);
  EXPECT_EQ(ParameterCount(*PresetShape("llama3.1-8b")), 8'030'261'248);
  EXPECT_EQ(ParameterCount(*PresetShape("llama3.2-3b")), 3'212'749'824);
  EXPECT_EQ(ParameterCount(*PresetShape("llama3.2-1b")), 1'235'814'400);
  const absl::Status status = PresetShape("llama4").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("llama3.2-1b"));
}

TEST(ConfigFiles, SayWhatTheShapeIs) {
  for (const std::string& name : PresetNames()) {
    const ModelConfig shape = *PresetShape(name);
    const auto files = ConfigFiles(shape, NumberFormat::kFloat16);
    ASSERT_THAT(files, IsOk());
    const auto read = engine::ParseModelConfig(files->at("config.json"), "config.json");
    ASSERT_THAT(read, IsOk());
    EXPECT_EQ(ParameterCount(*read), ParameterCount(shape));
    EXPECT_EQ(read->layer_count(), shape.layer_count());
    EXPECT_EQ(read->head_count, shape.head_count);
    EXPECT_EQ(read->context_length, shape.context_length);
    EXPECT_EQ(read->rope_theta, shape.rope_theta);
    EXPECT_EQ(read->rms_norm_epsilon, shape.rms_norm_epsilon);
    EXPECT_EQ(read->tied_embeddings, shape.tied_embeddings);
    EXPECT_EQ(read->begin_token_id, shape.begin_token_id);
    EXPECT_EQ(read->stop_token_ids, shape.stop_token_ids);
    ASSERT_EQ(read->rope_scaling.has_value(), shape.rope_scaling.has_value());
    if (shape.rope_scaling) {
      EXPECT_EQ(std::get<engine::Llama3Rope>(*read->rope_scaling).factor,
                std::get<engine::Llama3Rope>(*shape.rope_scaling).factor);
    }
    EXPECT_EQ(json::parse(files->at("config.json"))["torch_dtype"], "float16");
    EXPECT_EQ(json::parse(files->at("generation_config.json"))["eos_token_id"], shape.stop_token_ids);
  }
}

TEST(ConfigFiles, RefuseSizesThatContradictEachOther) {
  ModelConfig shape = *PresetShape("tiny");
  shape.key_value_head_count = 3;
  EXPECT_THAT(std::string(ConfigFiles(shape, NumberFormat::kBFloat16).status().message()),
              HasSubstr("'num_key_value_heads' does not divide"));
}

TEST(DropTokensPastTheVocabulary, KeepsTheOthers) {
  ModelConfig shape = *PresetShape("llama3.2-1b");
  shape.vocabulary_size = 128002;
  DropTokensPastTheVocabulary(shape);
  EXPECT_EQ(shape.begin_token_id, 128000);
  EXPECT_THAT(shape.stop_token_ids, ElementsAre(128001));
  shape.vocabulary_size = 100;
  DropTokensPastTheVocabulary(shape);
  EXPECT_FALSE(shape.begin_token_id.has_value());
}

std::string BytesOf(const engine::TensorSource& source) {
  std::string bytes;
  const absl::Status status = source.write([&](absl::Span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return absl::OkStatus();
  });
  EXPECT_THAT(status, IsOk());
  EXPECT_EQ(bytes.size(), *engine::TensorBytes(source));
  return bytes;
}
template <typename T>
std::vector<T> ValuesOf(const std::string& name, const std::vector<int64_t>& shape, NumberFormat dtype,
                        int seed = 1) {
  const std::string bytes = BytesOf(RandomTensor(name, shape, dtype, seed));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}
std::vector<float> FloatsOf(const std::string& name, const std::vector<int64_t>& shape, int seed = 1) {
  return ValuesOf<float>(name, shape, NumberFormat::kFloat32, seed);
}

struct Moments {
  double mean, deviation, within_one_deviation;
};
Moments MomentsOf(const std::vector<float>& values) {
  const double n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (float value : values) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / n);
  const auto inside = std::count_if(values.begin(), values.end(),
                                    [&](float value) { return std::abs(value - mean) < deviation; });
  return {mean, deviation, static_cast<double>(inside) / n};
}

TEST(RandomTensor, MatricesAreNormalWithDeviationOneOverTheRootOfTheirInputs) {
  const Moments moments = MomentsOf(FloatsOf("w", {4000, 256}));  // a million: standard error 1e-3
  EXPECT_NEAR(moments.mean, 0, 4e-3 / 16);
  EXPECT_NEAR(moments.deviation, 1.0 / 16, 0.01 / 16);
  EXPECT_NEAR(moments.within_one_deviation, 0.6827, 0.005);
}

TEST(RandomTensor, GainsAreNearOne) {
  const Moments moments = MomentsOf(FloatsOf("g", {100'000}));
  EXPECT_NEAR(moments.mean, 1, 2e-3);
  EXPECT_NEAR(moments.deviation, 0.1, 2e-3);
}

TEST(RandomTensor, DependsOnSeedNameAndPlaceAlone) {
  const std::vector<float> values = FloatsOf("w", {7, 31});  // 217: not a multiple of four
  EXPECT_EQ(values, FloatsOf("w", {7, 31}));
  EXPECT_NE(values, FloatsOf("w", {7, 31}, /*seed=*/2));
  EXPECT_NE(values, FloatsOf("v", {7, 31}));
  // More rows, made in several blocks: the first ones are the same, none repeats.
  const std::vector<float> more = FloatsOf("w", {200'000, 31});
  EXPECT_TRUE(std::equal(values.begin(), values.end(), more.begin()));
  EXPECT_EQ(std::search(more.begin() + 1, more.end(), values.begin(), values.begin() + 8), more.end());
}

TEST(RandomTensor, SixteenBitTypesAreTheSameValuesRounded) {
  const std::vector<float> values = FloatsOf("w", {50, 64});
  const auto halves = ValuesOf<uint16_t>("w", {50, 64}, NumberFormat::kFloat16);
  const auto brains = ValuesOf<uint16_t>("w", {50, 64}, NumberFormat::kBFloat16);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(halves[i], FloatToFloat16(values[i]));
    ASSERT_EQ(brains[i], FloatToBFloat16(values[i]));
  }
}

TEST(RandomTensor, StopsAtTheSinksError) {
  int pieces = 0;
  const absl::Status status = RandomTensor("w", {10'000, 1000}, NumberFormat::kBFloat16, 1).write([&](auto) {
    ++pieces;
    return absl::ResourceExhaustedError("full");
  });
  EXPECT_EQ(status.message(), "full");
  EXPECT_EQ(pieces, 1);
}

class WrittenCheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("abstract-made-" + std::to_string(::getpid()));
    fs::remove_all(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }

  void Write(const ModelConfig& shape, NumberFormat dtype, engine::CheckpointFiles files = {}) {
    files.merge(*ConfigFiles(shape, dtype));
    std::vector<engine::TensorSource> tensors;
    for (const engine::TensorInfo& tensor : engine::ModelTensors(shape)) {
      if (tensor.optional) continue;
      tensors.push_back(RandomTensor(tensor.name, tensor.shape, dtype, /*seed=*/1));
    }
    const absl::Status status =
        engine::WriteCheckpoint(directory_.string(), tensors, files, {.shard_bytes = 100'000});
    ASSERT_THAT(status, IsOk());
  }

  fs::path directory_;
};

// Sixteen layers, and still the residual stream has values of order one to ten.
TEST_F(WrittenCheckpointTest, TheEngineRunsItAndActivationsKeepASaneSize) {
  ModelConfig shape = *PresetShape("tiny");
  shape.layers.resize(16);
  Write(shape, NumberFormat::kBFloat16);
  const auto model = engine::Model::Load(directory_.string());
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ((*model)->parameter_count(), ParameterCount(shape));

  engine::DirectExecutor executor(*model);
  engine::RunContext context{executor, {}, {}};
  engine::TokenizedPrompt prompt;
  prompt.ids = {510, 3, 1, 4, 1, 5, 9, 2, 6};
  const engine::HookSite residual{engine::HookPoint::kResidPost, 15}, logits{engine::HookPoint::kLogits, 0};
  engine::PlanCompiler compiler((*model)->config());
  Violations violations;
  compiler.Add(prompt, {}, {{residual, logits}, {}}, violations.root());
  const auto plans = engine::RunSourcesAndFinish(context, compiler);
  ASSERT_THAT(plans, IsOk());
  const auto run = engine::RunWithCache(context, prompt, plans->front());
  ASSERT_THAT(run, IsOk());
  const auto& activations = (*run)->activations;
  EXPECT_GT(MomentsOf(activations.at(residual).values.values).deviation, 0.5);
  EXPECT_LT(MomentsOf(activations.at(residual).values.values).deviation, 10);
  EXPECT_NEAR(MomentsOf(activations.at(logits).values.values).deviation, 1, 0.3);
}

TEST_F(WrittenCheckpointTest, TheTokenizerOfAnotherCheckpoint) {
  ModelConfig shape = *PresetShape("tiny");
  engine::CheckpointFiles files;
  EXPECT_THAT(std::string(AddTokenizer(kEmbeddedModel, shape, files).message()),
              HasSubstr("has 2608 tokens, more than the vocabulary of 512"));
  shape.vocabulary_size = 2608;
  ASSERT_THAT(AddTokenizer(kEmbeddedModel, shape, files), IsOk());
  EXPECT_EQ(files.size(), 3u);
  EXPECT_EQ(shape.begin_token_id, 2603);
  EXPECT_THAT(shape.stop_token_ids, ElementsAre(2604, 2607));
  Write(shape, NumberFormat::kFloat32, files);
  const auto model = engine::Model::Load(directory_.string());
  ASSERT_THAT(model, IsOk());
  EXPECT_TRUE((*model)->chat_template().has_value());
  EXPECT_EQ((*model)->config().stop_token_ids, shape.stop_token_ids);
}

}  // namespace
}  // namespace mechinterp::make_checkpoint
