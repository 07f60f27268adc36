#ifndef TESTS_SERVICES_ENGINE_KERNELS_PRODUCTS_H_
#define TESTS_SERVICES_ENGINE_KERNELS_PRODUCTS_H_

#include <string>
#include <vector>

#include "hwy/detect_targets.h"
#include "hwy/targets.h"
#include "services/engine/kernels/matrix.h"
#include "services/engine/kernels/multiply.h"

// What the tests of products with packed matrices have in common.
namespace mechinterp::engine::kernels {

std::vector<float> Random(size_t count, unsigned seed);
float Rounded(NumberFormat compute, float value);
PackedMatrix Pack(NumberFormat format, NumberFormat compute, int64_t out, int64_t in,
                  const std::vector<float>& w);

struct Size {
  int64_t n, in, out;
};
// Around every boundary: panels of 64 outputs, groups of 64 (and of 8, 16 and 32 for
// NF4), blocks of 6 rows, 4 rows decoded in registers, tiles of 16 rows, 64 and 128 rows
// at a time.
inline constexpr Size kSizes[] = {{1, 64, 1},    {1, 8, 3},    {2, 128, 64},  {3, 176, 65},  {4, 72, 130},
                                  {5, 64, 63},   {6, 256, 70}, {7, 352, 128}, {13, 40, 200}, {16, 96, 40},
                                  {17, 128, 64}, {33, 64, 64}, {49, 32, 70},  {129, 24, 5},  {140, 192, 66}};

struct Kind {
  NumberFormat format;
  NumberFormat compute;
  const char* name;
};
inline constexpr Kind kKinds[] = {
    {NumberFormat::kFloat32, NumberFormat::kFloat32, "Float32"},
    {NumberFormat::kFloat32, NumberFormat::kFloat16, "Float32InFloat16"},
    {NumberFormat::kFloat16, NumberFormat::kFloat32, "Float16InFloat32"},
    {NumberFormat::kFloat16, NumberFormat::kFloat16, "Float16"},
    {NumberFormat::kBFloat16, NumberFormat::kFloat32, "BFloat16InFloat32"},
    {NumberFormat::kBFloat16, NumberFormat::kBFloat16, "BFloat16"},
    {NumberFormat::kInt8, NumberFormat::kFloat32, "Int8InFloat32"},
    {NumberFormat::kInt8, NumberFormat::kBFloat16, "Int8InBFloat16"},
    {NumberFormat::kNf4, NumberFormat::kFloat32, "Nf4InFloat32"},
    {NumberFormat::kNf4, NumberFormat::kBFloat16, "Nf4InBFloat16"},
    {NumberFormat::kNf4, NumberFormat::kFloat16, "Nf4InFloat16"},
};

// Calls a function with each instruction set that this machine has, and with each of its
// ways to multiply bf16.
template <typename Function>
void OnEveryInstructionSet(Function&& function) {
  const int64_t all = hwy::SupportedTargets() & HWY_TARGETS;
  for (int64_t rest = all; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    function(std::string(hwy::TargetName(target)));
    if (UnitInUse() != BFloat16Unit::kTiles) continue;
    LimitBFloat16Unit(BFloat16Unit::kPairs);
    function(std::string(hwy::TargetName(target)) + " without tiles");
    LimitBFloat16Unit(BFloat16Unit::kTiles);
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}
// SSE and Highway's portable code round twice.
bool FusesMultiplyAdd(const std::string& target);

// A matrix's values before their groups' scales, by the formats' definitions.
struct Unscaled {
  std::vector<float> values;  // [out, in]
  std::vector<float> scales;  // of each value
};
Unscaled UnscaledOf(const Kind& kind, int64_t out, int64_t in, const std::vector<float>& w);

}  // namespace mechinterp::engine::kernels

#endif  // TESTS_SERVICES_ENGINE_KERNELS_PRODUCTS_H_
