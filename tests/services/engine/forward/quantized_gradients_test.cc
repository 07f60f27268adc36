// Gradients through weights as they are packed against those of the model that they stand for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "services/engine/checkpoint/checkpoint_writer.h"
#include "services/engine/forward/executor.h"
#include "services/engine/kernels/quantize.h"
#include "services/engine/weights/weights.h"
#include "tests/services/engine/fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp::engine {
namespace {

using Gradients = std::map<HookSite, RecordedActivation>;

// Of the difference of two logits, at every site.
Gradients GradientsOf(const Model& model) {
  Segment segment;
  for (int i = 0; i < 9; ++i)
    segment.tokens.push_back((37 * i + 5) % static_cast<int>(model.config().vocabulary_size));
  auto plan = std::make_shared<GradientPlan>();
  plan->metric = [](absl::Span<const float>, absl::Span<float> gradient) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    gradient[7] = 1;
    gradient[11] = -1;
  };
  std::vector<int> positions(segment.length());
  std::iota(positions.begin(), positions.end(), 0);
  for (const HookSite& site : AllSites(model.config())) plan->captures[site] = {site, positions};
  segment.gradient = plan;
  Segment* const segments[] = {&segment};
  EXPECT_THAT(RunPass(model, segments), IsOk());
  return segment.gradients.empty() ? Gradients() : segment.gradients[0];
}

// Each within `tolerance` of its largest value.
void ExpectSame(const Gradients& ours, const Gradients& expected, double tolerance) {
  ASSERT_FALSE(ours.empty());
  ASSERT_EQ(ours.size(), expected.size());
  for (const auto& [site, gradient] : expected) {
    const std::vector<float>&a = ours.at(site).values.values, &b = gradient.values.values;
    ASSERT_EQ(a.size(), b.size());
    double largest = 0, difference = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max<double>(largest, std::abs(b[i]));
      difference = std::max<double>(difference, std::abs(a[i] - b[i]));
    }
    EXPECT_LE(difference, tolerance * largest) << SiteName(site);
  }
}

std::shared_ptr<const Model> Load(const std::string& directory, const Quantization& head,
                                  NumberFormat compute, bool dequantize) {
  LoadOptions options;
  options.head = head;
  options.compute_type = compute;
  options.dequantize_nf4 = dequantize;
  const auto model = Model::Load(directory, options);
  EXPECT_THAT(model, IsOk());
  return *model;
}

TEST(QuantizedGradients, ThroughNf4AreTheDequantizedModels) {
  const std::string directory = TestData("llama3-gqa-bnb-nf4");
  const auto packed = Load(directory, kUnquantized, NumberFormat::kFloat32, false);
  ASSERT_EQ(packed->weights().layers[0].query.matrix.format, NumberFormat::kNf4);
  const auto dequantized = Load(directory, kUnquantized, NumberFormat::kFloat32, true);
  ASSERT_EQ(dequantized->weights().layers[0].query.matrix.format, NumberFormat::kFloat32);
  ExpectSame(GradientsOf(*packed), GradientsOf(*dequantized), 1e-5);
}

// Operands have 8 bits of mantissa in every product on the way. A scale's gradient is a sum in which most
// cancels.
TEST(QuantizedGradients, InBf16AreNearThoseInFp32) {
  for (const char* name : {"llama3-gqa-bnb-nf4", "llama31-rope-scaled"}) {
    const auto rounded = Load(TestData(name), kUnquantized, NumberFormat::kBFloat16, false);
    const auto exact = Load(TestData(name), kUnquantized, NumberFormat::kFloat32, false);
    Gradients ours = GradientsOf(*rounded), expected = GradientsOf(*exact);
    const auto is_scale = [](const auto& entry) {
      const HookPoint point = entry.first.point;
      return point == HookPoint::kLn1Scale || point == HookPoint::kLn2Scale ||
             point == HookPoint::kLnFinalScale;
    };
    std::erase_if(ours, is_scale);
    std::erase_if(expected, is_scale);
    ExpectSame(ours, expected, 0.05);
  }
}

// The same checkpoint with its head as int8 leaves it.
class DequantizedHead {
 public:
  explicit DequantizedHead(const std::string& directory)
      : directory_((std::filesystem::temp_directory_path() /
                    ("abstract-dequantized-head-" + std::to_string(::getpid())))
                       .string()) {
    const auto file = *SafetensorsFile::Open(directory + "/model.safetensors");
    std::vector<TensorSource> tensors;
    for (const auto& [name, view] : file->tensors()) {
      auto values = std::make_shared<HostTensor>(*ToHostTensor(view));
      if (name == "lm_head.weight") Dequantize(*values);
      tensors.push_back({name, NumberFormat::kFloat32, values->shape, [values](const ByteSink& sink) {
                           return sink({reinterpret_cast<const std::byte*>(values->values.data()),
                                        values->values.size() * sizeof(float)});
                         }});
    }
    std::ifstream config(directory + "/config.json");
    const std::string text((std::istreambuf_iterator<char>(config)), {});
    EXPECT_THAT(WriteCheckpoint(directory_, tensors, {{"config.json", text}}), IsOk());
  }
  ~DequantizedHead() { std::filesystem::remove_all(directory_); }

  const std::string& directory() const { return directory_; }

 private:
  static void Dequantize(HostTensor& head) {
    constexpr int64_t kBlock = 64;
    const int64_t width = head.shape[1], blocks = (width + kBlock - 1) / kBlock;
    std::vector<int8_t> codes(width);
    std::vector<float> scales(blocks);
    for (int64_t row = 0; row < head.shape[0]; ++row) {
      float* values = head.values.data() + row * width;
      kernels::QuantizeInt8(values, width, kBlock, codes.data(), scales.data());
      for (int64_t i = 0; i < width; ++i) values[i] = static_cast<float>(codes[i]) * scales[i / kBlock];
    }
  }

  const std::string directory_;
};

TEST(QuantizedGradients, ThroughAnInt8HeadAreTheDequantizedModels) {
  const std::string directory = TestData("llama3-gqa");
  const auto packed = Load(directory, NumberFormat::kInt8, NumberFormat::kFloat32, false);
  ASSERT_EQ(packed->weights().unembedding.matrix.format, NumberFormat::kInt8);
  const DequantizedHead dequantized(directory);
  ExpectSame(GradientsOf(*packed),
             GradientsOf(*Load(dequantized.directory(), kUnquantized, NumberFormat::kFloat32, false)), 1e-5);
}

}  // namespace
}  // namespace mechinterp::engine
