#include "data/trainer/components.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace mechinterp::trainer {
namespace {

TEST(AllComponents, CoverTheModelOnce) {
  ModelConfig config;
  config.layers = 3;
  config.heads = 8;
  config.intermediate_size = 40;  // not a multiple of the group size
  EXPECT_EQ(AllComponents(config, ComponentKind::kHead).size(), 24u);
  int64_t neurons = 0;
  for (const Component& component : AllComponents(config, ComponentKind::kNeurons))
    neurons += component.count;
  EXPECT_EQ(neurons, 3 * 40);
}

TEST(Component, IsNamedByLayerAndPlace) {
  EXPECT_EQ((Component{ComponentKind::kHead, 3, 5, 1}).Name(), "L3.H5");
  EXPECT_EQ((Component{ComponentKind::kNeurons, 2, 16, 16}).Name(), "L2.N16-31");
}

TEST(MeanAblation, SetsOnlyTheNamedSlices) {
  Activations means;
  means.z = {at::full({2, 4}, 5.0)};
  means.post = {at::full({6}, 7.0)};
  const ModelHooks hooks =
      MeanAblation({{ComponentKind::kHead, 0, 1, 1}, {ComponentKind::kNeurons, 0, 2, 3}}, means);
  const at::Tensor z = hooks.on_z(0, at::zeros({1, 3, 2, 4}));
  EXPECT_EQ(z.select(2, 0).abs().max().item<float>(), 0);
  EXPECT_EQ(z.select(2, 1).min().item<float>(), 5);
  const at::Tensor post = hooks.on_post(0, at::zeros({1, 3, 6}));
  EXPECT_EQ(post.sum().item<float>(), 3 * 3 * 7);
}

}  // namespace
}  // namespace mechinterp::trainer
