// Loading in every format, and saving quantized checkpoints.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "services/common/float16.h"
#include "services/engine/checkpoint/safetensors_writer.h"
#include "services/engine/forward/executor.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/weights/save_quantized.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using testing::HasSubstr;

const std::vector<TokenId> kPrompt = {351, 114, 486, 119, 420, 99, 463, 100, 238, 171, 327, 214};

HostTensor Logits(const std::shared_ptr<const Model>& model) {
  DirectExecutor executor(model);
  Segment segment;
  segment.tokens = kPrompt;
  segment.logits_rows = LogitsRows::kAll;
  Segment* const segments[] = {&segment};
  EXPECT_THAT(executor.Run(segments, nullptr), IsOk());
  return segment.logits;
}

std::shared_ptr<const Model> Load(const std::string& directory, const LoadOptions& options) {
  auto model = Model::Load(directory, options);
  EXPECT_THAT(model, IsOk());
  return *model;
}

LoadOptions Options(std::optional<Quantization> quantization, NumberFormat compute,
                    Quantization head = kUnquantized) {
  LoadOptions options;
  options.quantization = quantization;
  options.compute_type = compute;
  options.head = head;
  return options;
}

double RelativeError(const HostTensor& a, const HostTensor& reference) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a.values[i]} - reference.values[i], 2);
    size += std::pow(double{reference.values[i]}, 2);
  }
  return std::sqrt(difference / size);
}

class NewDirectory {
 public:
  explicit NewDirectory(const std::string& suffix = "")
      : path_(std::filesystem::temp_directory_path() /
              absl::StrCat("abstract-load-", ::getpid(), "-",
                           testing::UnitTest::GetInstance()->current_test_info()->name(), suffix)) {
    std::filesystem::remove_all(path_);
  }
  ~NewDirectory() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(ResolveFormats, ChoosesBySource) {
  const WeightFormats plain = ResolveFormats({}, {});
  EXPECT_EQ(plain.quantization, kUnquantized);
  EXPECT_EQ(plain.head, kUnquantized);
  EXPECT_EQ(plain.compute_type, NumberFormat::kFloat32);
  const WeightFormats stored = ResolveFormats({}, {.linear = true});
  EXPECT_EQ(stored.quantization, NumberFormat::kNf4);
  EXPECT_EQ(stored.head, NumberFormat::kInt8);
  EXPECT_EQ(stored.compute_type,
            kernels::MultipliesBFloat16() ? NumberFormat::kBFloat16 : NumberFormat::kFloat32);
  EXPECT_EQ(ResolveFormats({}, {.linear = true, .head = true}).head, NumberFormat::kNf4);
  LoadOptions dequantizing;
  dequantizing.dequantize_nf4 = true;
  const WeightFormats dequantized = ResolveFormats(dequantizing, {.linear = true});
  EXPECT_EQ(dequantized.quantization, NumberFormat::kNf4);
  EXPECT_EQ(dequantized.head, kUnquantized);
  EXPECT_EQ(dequantized.compute_type, NumberFormat::kFloat32);
  LoadOptions all;
  all.quantization = kUnquantized;
  all.head = NumberFormat::kNf4;
  all.compute_type = NumberFormat::kFloat16;
  const WeightFormats chosen = ResolveFormats(all, {.linear = true, .head = true});
  EXPECT_EQ(chosen.quantization, kUnquantized);
  EXPECT_EQ(chosen.head, NumberFormat::kNf4);
  EXPECT_EQ(chosen.compute_type, NumberFormat::kFloat16);
}

TEST(Load, APreQuantizedCheckpointMayBeHeldDequantized) {
  const HostTensor packed =
      Logits(Load(TestData("llama3-gqa-bnb-nf4"), Options(NumberFormat::kNf4, NumberFormat::kFloat32)));
  const HostTensor plain =
      Logits(Load(TestData("llama3-gqa-bnb-nf4"), Options(kUnquantized, NumberFormat::kFloat32)));
  EXPECT_LT(MaxDifference(packed, plain), 1e-4);
}

// Rounding the operands to so many bits costs that much, and no more.
TEST(Load, HalfPrecisionArithmeticIsCloseToFp32) {
  for (auto quantization : {kUnquantized, Quantization(NumberFormat::kNf4)}) {
    const HostTensor exact =
        Logits(Load(TestData("llama3-gqa"), Options(quantization, NumberFormat::kFloat32)));
    for (const auto& [compute, most] :
         {std::pair(NumberFormat::kBFloat16, 2e-2), std::pair(NumberFormat::kFloat16, 3e-3)}) {
      const double error =
          RelativeError(Logits(Load(TestData("llama3-gqa"), Options(quantization, compute))), exact);
      EXPECT_LT(error, most);
      EXPECT_GT(error, most / 1000);  // and it is not fp32 under another name
    }
  }
}

TEST(Load, AnInt8HeadIsCloserThanAnNf4Head) {
  const HostTensor exact =
      Logits(Load(TestData("llama3-gqa"), Options(kUnquantized, NumberFormat::kFloat32)));
  auto error = [&](Quantization head) {
    return RelativeError(
        Logits(Load(TestData("llama3-gqa"), Options(kUnquantized, NumberFormat::kFloat32, head))), exact);
  };
  EXPECT_LT(error(NumberFormat::kInt8), 0.01);
  EXPECT_GT(error(NumberFormat::kNf4), 0.02);
  EXPECT_LT(error(NumberFormat::kNf4), 0.15);
}

TEST(Load, CountsWeightBytesByFormat) {
  const auto model =
      Load(TestData("llama3-gqa"), Options(NumberFormat::kNf4, NumberFormat::kFloat32, NumberFormat::kInt8));
  // 4 layers, d 64, kv 16 (held in panels of 64), ff 176 (whose NF4 rows have a scale for every 16).
  const int64_t nf4 = 4 * ((2 * 64 + 2 * 64 + 2 * 192) * 64 * 9 / 16 + 64 * 176 * 3 / 4);
  const int64_t int8 = 512 * 64 * 17 / 16;
  const int64_t gains = 9 * 64 * 4;
  EXPECT_THAT(model->weight_bytes(),
              testing::UnorderedElementsAre(testing::Pair(NumberFormat::kNf4, nf4),
                                            testing::Pair(NumberFormat::kInt8, int8),
                                            testing::Pair(NumberFormat::kFloat32, gains)));
  EXPECT_EQ(model->total_weight_bytes(), nf4 + int8 + gains);
}

// The test model with its values rounded to fp16, stored as `dtype`.
void WriteRoundedToFloat16(const std::string& directory, NumberFormat dtype) {
  std::filesystem::create_directory(directory);
  std::filesystem::copy(TestData("llama3-gqa") + "/config.json", directory);
  const auto checkpoint = Checkpoint::Open(TestData("llama3-gqa"));
  ASSERT_THAT(checkpoint, IsOk());
  std::vector<HostTensor> values;
  values.reserve(checkpoint->tensors().size());
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, view] : checkpoint->tensors()) {
    auto tensor = ToHostTensor(view);
    ASSERT_THAT(tensor, IsOk());
    for (float& value : tensor->values) value = Float16ToFloat(FloatToFloat16(value));
    values.push_back(*std::move(tensor));
    tensors.push_back({std::string(name), dtype, values.back().shape, values.back().values});
  }
  ASSERT_THAT(WriteSafetensors(directory + "/model.safetensors", tensors), IsOk());
}

TEST(Load, Fp16IsHeldAsItIsStoredAndComputesAsItsValuesInFp32Do) {
  const NewDirectory as_f16("-f16"), as_f32("-f32");
  WriteRoundedToFloat16(as_f16.path(), NumberFormat::kFloat16);
  WriteRoundedToFloat16(as_f32.path(), NumberFormat::kFloat32);
  const auto held = Load(as_f16.path(), Options(kUnquantized, NumberFormat::kFloat32));
  const auto wide = Load(as_f32.path(), Options(kUnquantized, NumberFormat::kFloat32));
  EXPECT_EQ(Logits(held).values, Logits(wide).values);
  const int64_t gains = 9 * 64 * 4;
  EXPECT_EQ(held->weight_bytes().at(NumberFormat::kFloat16) * 2,
            wide->weight_bytes().at(NumberFormat::kFloat32) - gains);
}

TEST(Load, TheEstimateIsWhatItTakes) {
  const auto checkpoint = Checkpoint::Open(TestData("llama31-rope-scaled"));
  ASSERT_THAT(checkpoint, IsOk());
  for (auto quantization : {kUnquantized, Quantization(NumberFormat::kNf4)}) {
    for (auto head : {kUnquantized, Quantization(NumberFormat::kInt8), Quantization(NumberFormat::kNf4)}) {
      for (auto compute : {NumberFormat::kFloat32, NumberFormat::kBFloat16}) {
        const LoadOptions options = Options(quantization, compute, head);
        const auto model = Load(TestData("llama31-rope-scaled"), options);
        EXPECT_EQ(model->weight_bytes(), EstimateWeightBytes(*checkpoint, ResolveFormats(options, {})));
      }
    }
  }
}

TEST(Load, AMemoryLimitIsHeldBeforeAnythingIsLoaded) {
  LoadOptions options;
  options.memory_limit_bytes = 512 << 10;
  const auto refused = Model::Load(TestData("llama3-gqa"), options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("quantization nf4"));
  options.quantization = NumberFormat::kNf4;
  EXPECT_THAT(Model::Load(TestData("llama3-gqa"), options), IsOk());
}

TEST(SaveQuantized, IsLoadedAsWhatItWasMadeFrom) {
  for (bool double_quantization : {false, true}) {
    const NewDirectory saved;
    ASSERT_THAT(SaveQuantized(TestData("llama31-rope-scaled"), saved.path(), double_quantization), IsOk());
    LoadOptions options = Options(NumberFormat::kNf4, NumberFormat::kFloat32);
    options.double_quantization = double_quantization;
    const HostTensor on_load = Logits(Load(TestData("llama31-rope-scaled"), options));
    const auto model = Load(saved.path(), Options(std::nullopt, NumberFormat::kFloat32));
    EXPECT_EQ(model->formats().quantization, NumberFormat::kNf4);
    EXPECT_EQ(Logits(model).values, on_load.values);
  }
}

// Part by part what bitsandbytes wrote; only the JSON's spacing may differ.
TEST(SaveQuantized, WritesTheLayoutOfPreQuantizedCheckpoints) {
  const NewDirectory saved;
  ASSERT_THAT(SaveQuantized(TestData("llama3-gqa"), saved.path(), /*double_quantization=*/true), IsOk());
  const auto ours = Checkpoint::Open(saved.path());
  const auto theirs = Checkpoint::Open(TestData("llama3-gqa-bnb-nf4"));
  ASSERT_TRUE(ours.ok() && theirs.ok()) << ours.status();
  EXPECT_EQ(ours->tensors().size(), theirs->tensors().size());
  for (const auto& [name, view] : theirs->tensors()) {
    if (name.find("_proj") == std::string::npos) continue;  // the reference rounded the others to bf16
    const TensorView* mine = ours->Find(name);
    ASSERT_NE(mine, nullptr) << name;
    EXPECT_EQ(mine->dtype, view.dtype) << name;
    if (name.find("quant_state") != std::string::npos || name.find("nested_absmax") != std::string::npos)
      continue;
    EXPECT_EQ(mine->shape, view.shape) << name;
    EXPECT_TRUE(std::equal(mine->bytes.begin(), mine->bytes.end(), view.bytes.begin(), view.bytes.end()))
        << name;
  }
}

TEST(SaveQuantized, LeavesNothingWhenAWeightIsNotFinite) {
  const NewDirectory source, saved;
  std::filesystem::create_directories(source.path() + "-in");
  std::filesystem::copy(TestData("llama3-gqa"), source.path() + "-in",
                        std::filesystem::copy_options::recursive);
  const auto file = SafetensorsFile::Open(source.path() + "-in/model.safetensors");
  ASSERT_THAT(file, IsOk());
  const std::string name = "model.layers.2.mlp.up_proj.weight";
  const auto first = reinterpret_cast<const std::byte*>((*file)->Find(name)->bytes.data());
  std::ifstream in(source.path() + "-in/model.safetensors", std::ios::binary);
  const std::string contents(std::istreambuf_iterator<char>(in), {});
  const size_t offset = contents.find(std::string(reinterpret_cast<const char*>(first), 64));
  ASSERT_NE(offset, std::string::npos);
  std::fstream out(source.path() + "-in/model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
  out.seekp(static_cast<std::streamoff>(offset));
  const float nan = NAN;
  out.write(reinterpret_cast<const char*>(&nan), sizeof nan);
  out.close();
  const absl::Status status = SaveQuantized(source.path() + "-in", saved.path(), false);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  EXPECT_FALSE(std::filesystem::exists(saved.path()));
  for (auto quantization : {kUnquantized, Quantization(NumberFormat::kNf4)}) {
    const auto model = Model::Load(source.path() + "-in", Options(quantization, NumberFormat::kFloat32));
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(name));
  }
  std::filesystem::remove_all(source.path() + "-in");
}

}  // namespace
}  // namespace mechinterp::engine
