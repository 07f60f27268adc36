#include "services/engine/checkpoint/nf4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "services/engine/operations/generation.h"
#include "services/engine/weights/nf4_quantize.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

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
  DirectExecutor executor(fixture.model());
  Segment segment;
  segment.tokens = {351, 114, 486, 119, 420, 99,  463, 100, 238, 171, 327, 214, 81,  49,
                    302, 110, 432, 444, 454, 144, 326, 415, 23,  45,  299, 402, 108, 440,
                    244, 255, 415, 377, 101, 4,   281, 227, 208, 369, 272, 168};  // cases.json
  segment.logits_rows = LogitsRows::kAll;
  Segment* const segments[] = {&segment};
  ASSERT_THAT(executor.Run(segments, nullptr), IsOk());
  EXPECT_LT(MaxDifference(segment.logits, fixture.expected("logits")), 1e-4);
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
