#include "services/engine/checkpoint/nf4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/engine/forward/executor.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/weights/linear_weight.h"
#include "services/engine/weights/nf4_quantize.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

constexpr char kMixed[] = "nf4-mixed";

// Logits of the prompt in a fixture's cases.json.
HostTensor Logits(const std::shared_ptr<const Model>& model, const std::string& fixture) {
  DirectExecutor executor(model);
  Segment segment;
  segment.tokens = nlohmann::json::parse(std::ifstream(TestData(fixture + "/cases.json")))["prompt"]
                       .get<std::vector<TokenId>>();
  segment.logits_rows = LogitsRows::kAll;
  Segment* const segments[] = {&segment};
  EXPECT_THAT(executor.Run(segments, nullptr), IsOk());
  return segment.logits;
}

// Nothing is rounded but what NF4 rounds.
LoadOptions WithoutRounding() {
  LoadOptions options;
  options.compute_type = NumberFormat::kFloat32;
  options.head = kUnquantized;
  return options;
}

TEST(Nf4, DequantizesToTheBitsOfBitsandbytes) {
  const std::string directory = TestData("llama3-gqa-bnb-nf4");
  const auto checkpoint = Checkpoint::Open(directory);
  ASSERT_THAT(checkpoint, IsOk());
  const auto expected = SafetensorsFile::Open(directory + "/expected.safetensors");
  ASSERT_THAT(expected, IsOk());
  int matrices = 0;
  for (const auto& [name, view] : (*expected)->tensors()) {
    if (!name.starts_with("dequantized/")) continue;
    const auto matrix = ReadNf4(*checkpoint, name.substr(12), view.shape);
    ASSERT_THAT(matrix, IsOk());
    EXPECT_EQ(Dequantize(*matrix).values, ToHostTensor(view)->values) << name;
    ++matrices;
  }
  EXPECT_EQ(matrices, 4 * 7);
}

// The same weights, unquantized, give the codes and scales that bitsandbytes made of them.
TEST(Nf4, QuantizesToTheBitsOfBitsandbytes) {
  const auto original = Checkpoint::Open(TestData("llama3-gqa"));
  const auto reference = Checkpoint::Open(TestData("llama3-gqa-bnb-nf4"));
  ASSERT_TRUE(original.ok() && reference.ok());
  int matrices = 0;
  for (int layer = 0; layer < 4; ++layer) {
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      const std::string name = absl::StrCat("model.layers.", layer, ".", part, ".weight");
      const TensorView& view = *original->Find(name);
      const auto ours = QuantizeToNf4(view, /*double_quantization=*/true);
      ASSERT_THAT(ours, IsOk());
      const auto theirs = ReadNf4(*reference, name, view.shape);
      ASSERT_THAT(theirs, IsOk());
      EXPECT_EQ(std::vector<uint8_t>(ours->codes.begin(), ours->codes.end()),
                std::vector<uint8_t>(theirs->codes.begin(), theirs->codes.end()))
          << name;
      EXPECT_EQ(ours->absmax, theirs->absmax) << name;
      EXPECT_EQ(ours->code, theirs->code);
      const TensorView& nested = *reference->Find(name + ".absmax");
      EXPECT_EQ(
          ours->nested->codes,
          std::vector<uint8_t>(reinterpret_cast<const uint8_t*>(nested.bytes.data()),
                               reinterpret_cast<const uint8_t*>(nested.bytes.data()) + nested.bytes.size()));
      EXPECT_EQ(ours->nested->absmax, ToHostTensor(*reference->Find(name + ".nested_absmax"))->values);
      const std::vector<float> map = ToHostTensor(*reference->Find(name + ".nested_quant_map"))->values;
      EXPECT_TRUE(std::equal(map.begin(), map.end(), DynamicMap().begin()));
      ++matrices;
    }
  }
  EXPECT_EQ(matrices, 4 * 7);
}

TEST(Nf4, APreQuantizedCheckpointGivesTheReferencesLogits) {
  const Fixture fixture("llama3-gqa-bnb-nf4");
  EXPECT_LT(MaxDifference(Logits(fixture.model(), "llama3-gqa-bnb-nf4"), fixture.expected("logits")), 1e-4);
}

// nf4-mixed: quantized in bf16 but for a matrix of each block, its codes stored under BF16,
// the scales of its second block under F16. The reference multiplies by dequantized weights,
// which bitsandbytes rounds to bf16.
TEST(Nf4, MatricesAreHeldAsTheyAreStored) {
  const auto model = Model::Load(TestData(kMixed), WithoutRounding());
  ASSERT_THAT(model, IsOk());
  const ModelWeights& weights = (*model)->weights();
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(weights.layers[layer].query.matrix.format, NumberFormat::kNf4);
    EXPECT_EQ(weights.layers[layer].up.matrix.format, NumberFormat::kNf4);
  }
  EXPECT_EQ(weights.layers[0].query.matrix.format, NumberFormat::kNf4);
  EXPECT_EQ(weights.layers[0].down.matrix.format, NumberFormat::kBFloat16);
  EXPECT_EQ(weights.layers[1].key.matrix.format, NumberFormat::kBFloat16);
  const auto checkpoint = Checkpoint::Open(TestData(kMixed));
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*model)->weight_bytes(), EstimateWeightBytes(*checkpoint, (*model)->formats()));
}

TEST(Nf4, DequantizedWeightsAreRoundedAsBitsandbytesDoes) {
  LoadOptions options = WithoutRounding();
  const Fixture fixture(kMixed);
  const HostTensor expected = fixture.expected("logits");
  const double packed = MaxDifference(Logits(*Model::Load(TestData(kMixed), options), kMixed), expected);
  options.dequantize_nf4 = true;
  const auto model = Model::Load(TestData(kMixed), options);
  ASSERT_THAT(model, IsOk());
  EXPECT_LT(MaxDifference(Logits(*model, kMixed), expected), 1e-4);
  EXPECT_GT(packed, 1e-3);  // what leaving the rounding out costs
  EXPECT_LT(packed, 0.1);
  for (const LayerWeights& layer : (*model)->weights().layers) {
    EXPECT_EQ(layer.query.matrix.format, NumberFormat::kBFloat16);
  }
  options.device.by_libtorch = true;
  EXPECT_LT(MaxDifference(Logits(*Model::Load(TestData(kMixed), options), kMixed), expected), 1e-4);
}

// As transformers does with load_in_4bit: each weight is what its code and scale make, in bf16.
TEST(Nf4, WhatIsQuantizedWhenLoadedMayBeDequantizedToo) {
  const auto stored = Checkpoint::Open(TestData("llama31-rope-scaled"));
  ASSERT_THAT(stored, IsOk());
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto values = ToHostTensor(*stored->Find(name));
  const auto quantized = QuantizeToNf4(*stored->Find(name), false);
  ASSERT_TRUE(values.ok() && quantized.ok());
  const HostTensor expected = Dequantize(*quantized);
  MatrixFormat format{NumberFormat::kBFloat16, NumberFormat::kFloat32};
  format.through_nf4 = true;
  const auto weight = LoadLinear(*stored, name, expected.shape[0], expected.shape[1], format);
  ASSERT_THAT(weight, IsOk());
  ASSERT_EQ(weight->matrix.format, NumberFormat::kBFloat16);
  // By columns: the products with unit vectors.
  for (const int column : {0, 7, 63}) {
    std::vector<float> x(expected.shape[1], 0), y(expected.shape[0]);
    x[column] = 1;
    kernels::Multiply(x.data(), 1, weight->matrix, y.data());
    for (int64_t row = 0; row < expected.shape[0]; ++row) {
      ASSERT_EQ(y[row], expected.values[row * expected.shape[1] + column]) << row << ", " << column;
    }
  }
  EXPECT_NE(expected.values, values->values);
}

// The type that the codes are stored under says nothing about them.
TEST(Nf4, CodesMayBeStoredUnderAnyType) {
  const auto checkpoint = Checkpoint::Open(TestData(kMixed));
  ASSERT_THAT(checkpoint, IsOk());
  const std::string name = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_EQ(checkpoint->Find(name)->dtype, NumberFormat::kBFloat16);
  EXPECT_EQ(checkpoint->Find("model.layers.1.self_attn.q_proj.weight.absmax")->dtype, NumberFormat::kFloat16);
  const auto expected = SafetensorsFile::Open(TestData(std::string(kMixed) + "/expected.safetensors"));
  ASSERT_THAT(expected, IsOk());
  int matrices = 0;
  for (const auto& [key, view] : (*expected)->tensors()) {
    if (!key.starts_with("dequantized/")) continue;
    const auto matrix = ReadNf4(*checkpoint, key.substr(12), view.shape);
    ASSERT_THAT(matrix, IsOk());
    EXPECT_EQ(Dequantize(*matrix).values, ToHostTensor(view)->values) << key;
    ++matrices;
  }
  EXPECT_EQ(matrices, 2 * 6);
}

TEST(Nf4, RefusesAShapeThatTheQuantStateContradicts) {
  const auto checkpoint = Checkpoint::Open(TestData("llama3-gqa-bnb-nf4"));
  ASSERT_THAT(checkpoint, IsOk());
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const auto result = ReadNf4(*checkpoint, name, {64, 176});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(result.status().message()), testing::HasSubstr(name));
}

}  // namespace
}  // namespace mechinterp::engine
