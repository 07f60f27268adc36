#include "services/engine/interventions/hook_point.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "services/engine/interventions/apply_hooks.h"

namespace mechinterp::engine {
namespace {

TEST(HookPoint, WireNumbersAreThoseThatWerePublished) {
  // As hook.proto numbers them; none of these may ever change.
  EXPECT_EQ(WireNumber(HookPoint::kEmbed), 1);
  EXPECT_EQ(WireNumber(HookPoint::kResidPre), 2);
  EXPECT_EQ(WireNumber(HookPoint::kZ), 12);
  EXPECT_EQ(WireNumber(HookPoint::kMlpPost), 20);
  EXPECT_EQ(WireNumber(HookPoint::kLogits), 25);
  EXPECT_EQ(WireNumber(HookPoint::kQInput), 26);
  EXPECT_EQ(WireNumber(HookPoint::kKInput), 27);
  EXPECT_EQ(WireNumber(HookPoint::kVInput), 28);
  EXPECT_EQ(WireNumber(HookPoint::kMlpIn), 29);
}

TEST(HookPoint, WireNumbersLeadBackToTheirPoints) {
  std::set<int> numbers;
  for (HookPoint point : AllHookPoints()) {
    EXPECT_EQ(PointOfWireNumber(WireNumber(point)), point);
    numbers.insert(WireNumber(point));
  }
  EXPECT_EQ(numbers.size(), AllHookPoints().size());
  EXPECT_EQ(PointOfWireNumber(0), std::nullopt);
  EXPECT_EQ(PointOfWireNumber(-1), std::nullopt);
  EXPECT_EQ(PointOfWireNumber(10'000), std::nullopt);
}

// What a noise of deviation 1 and seed 7 adds to an activation of zeros [2 positions, 2
// heads, 2 wide] at positions 3 and 4.
std::vector<float> Noise(const HookSite& site) {
  CompiledEdit edit;
  edit.site = site;
  edit.positions = {3, 4};
  edit.heads = {0, 1};
  edit.change = AddNoise{1, 7};
  std::vector<float> values(8);
  ApplyEdit(edit, 5, values.data(), {3, 2, 2, 2});
  return values;
}

TEST(HookPoint, NoiseIsTheOneThatWasPublished) {
  // By an independent implementation (Python) of SplitMix64 and Box-Muller with the keys of the
  // first release, when points were keyed by their order in the pass. A seed stands in results files: its
  // noise must not change.
  EXPECT_THAT(Noise({HookPoint::kZ, 2}),
              testing::Pointwise(testing::FloatEq(),
                                 std::vector<float>{1.18576276f, -1.56150365f, -0.00746548409f, -0.897515357f,
                                                    0.132064328f, -0.296504974f, -1.07769358f, 0.35417676f}));
  EXPECT_THAT(Noise({HookPoint::kLogits, 0}),
              testing::Pointwise(testing::FloatEq(),
                                 std::vector<float>{0.62483263f, -0.3012757f, 1.48166502f, -0.127469704f,
                                                    0.335472584f, 2.6990757f, -0.581624031f, -0.745376527f}));
}

}  // namespace
}  // namespace mechinterp::engine
