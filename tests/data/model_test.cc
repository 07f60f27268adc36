#include "data/trainer/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "data/trainer/checkpoint.h"
#include "services/common/json_file.h"
#include "services/engine/checkpoint/safetensors.h"
#include "tests/data/test_data.h"

namespace mechinterp::trainer {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.vocab_size = 20;
  config.hidden_size = 16;
  config.layers = 2;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 4;
  config.intermediate_size = 24;
  return config;
}

at::Tensor Ids(int64_t batch, int64_t length) {
  return at::arange(batch * length, at::kLong).view({batch, length}).remainder(20);
}

TEST(InitialWeights, DependOnTheSeedAlone) {
  Random a(1), b(1), c(2);
  Weights x = InitialWeights(SmallConfig(), a), y = InitialWeights(SmallConfig(), b),
          z = InitialWeights(SmallConfig(), c);
  EXPECT_TRUE(at::equal(x.layers[1].down, y.layers[1].down));
  EXPECT_FALSE(at::equal(x.layers[1].down, z.layers[1].down));
  EXPECT_EQ(x.Named().size(), 2u + 9u * 2u);
}

TEST(Forward, SeesNothingThatComesLater) {
  Random random(1);
  const Weights weights = InitialWeights(SmallConfig(), random);
  const at::Tensor ids = Ids(2, 7), changed = ids.clone();
  changed.select(1, 5).fill_(3);
  const at::Tensor before = Forward(SmallConfig(), weights, ids),
                   after = Forward(SmallConfig(), weights, changed);
  EXPECT_TRUE(at::allclose(before.narrow(1, 0, 5), after.narrow(1, 0, 5), 1e-6, 1e-6));
  EXPECT_FALSE(at::allclose(before.select(1, 5), after.select(1, 5)));
}

TEST(Forward, WithACacheEqualsTheWholeSequence) {
  Random random(1);
  const Weights weights = InitialWeights(SmallConfig(), random);
  const at::Tensor ids = Ids(3, 9);
  const at::Tensor whole = Forward(SmallConfig(), weights, ids);
  KvCache cache;
  const at::Tensor first = Forward(SmallConfig(), weights, ids.narrow(1, 0, 6), &cache);
  EXPECT_TRUE(at::allclose(first, whole.narrow(1, 0, 6), 1e-5, 1e-5));
  for (int64_t t = 6; t < 9; ++t) {
    const at::Tensor next = Forward(SmallConfig(), weights, ids.narrow(1, t, 1), &cache);
    EXPECT_TRUE(at::allclose(next.select(1, 0), whole.select(1, t), 1e-5, 1e-5)) << t;
  }
}

// Against Hugging Face transformers' own numbers (tests/testdata/llama3-gqa).
TEST(Forward, AgreesWithTransformers) {
  const std::string folder = std::string(ABSTRACT_SOURCE_DIR) + "/tests/testdata/llama3-gqa";
  const ModelConfig config = ValueOrFail(LoadModelConfig(folder + "/config.json"));
  const Weights weights = ValueOrFail(LoadWeights(folder + "/model.safetensors", config));
  const auto expected = ValueOrFail(engine::SafetensorsFile::Open(folder + "/expected.safetensors"));
  const auto cases = ValueOrFail(ReadOrderedJsonFile(folder + "/cases.json"));
  ASSERT_NE(expected, nullptr);
  for (const auto& [name, prompt] : cases["prompts"].items()) {
    const std::vector<int64_t> ids = prompt;
    const at::Tensor row = at::tensor(ids, at::kLong).unsqueeze(0);
    const at::Tensor hidden = Forward(config, weights, row).flatten().contiguous();
    const engine::TensorView* view = expected->Find(name + "/ln_final.hook_normalized");
    ASSERT_NE(view, nullptr) << name;
    const engine::HostTensor reference = ValueOrFail(engine::ToHostTensor(*view));
    ASSERT_EQ(hidden.numel(), reference.size());
    for (int64_t i = 0; i < reference.size(); ++i) {
      ASSERT_NEAR(hidden.data_ptr<float>()[i], reference.values[static_cast<size_t>(i)], 1e-4) << name << i;
    }
  }
}

// Autograd against central differences, in the direction of the gradient.
TEST(Forward, GradientAgreesWithFiniteDifferences) {
  Random random(2);
  Weights weights = InitialWeights(SmallConfig(), random);
  Weights leaves = GradientView(weights);
  const at::Tensor ids = Ids(1, 5);
  const auto loss = [&](const Weights& at_weights) {
    const at::Tensor logits = Logits(at_weights, Forward(SmallConfig(), at_weights, ids));
    return -at::log_softmax(logits, -1).select(2, 4).sum();
  };
  loss(leaves).backward();
  for (at::Tensor LayerWeights::*member :
       {&LayerWeights::q, &LayerWeights::k, &LayerWeights::v, &LayerWeights::o, &LayerWeights::gate,
        &LayerWeights::down, &LayerWeights::input_norm}) {
    const at::Tensor gradient = (leaves.layers[0].*member).grad();
    const double norm = gradient.norm().item<double>();
    const at::Tensor step = gradient * (1e-2 / norm);
    const c10::AutoGradMode no_gradients(false);
    (weights.layers[0].*member).add_(step);
    const double above = loss(weights).item<double>();
    (weights.layers[0].*member).sub_(2 * step);
    const double below = loss(weights).item<double>();
    (weights.layers[0].*member).add_(step);
    EXPECT_NEAR((above - below) / 2e-2 / norm, 1.0, 2e-2);
  }
}

}  // namespace
}  // namespace mechinterp::trainer
