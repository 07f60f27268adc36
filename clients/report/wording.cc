#include "clients/report/wording.h"

#include "absl/strings/str_format.h"

namespace mechinterp {

std::string EditName(v1::DirectionEdit edit) {
  switch (edit) {
    case v1::DIRECTION_EDIT_ABLATION:
      return "direction ablated";
    case v1::DIRECTION_EDIT_ADDITION:
      return "direction added";
    case v1::DIRECTION_EDIT_AFFINE:
      return "direction set to harmless mean";
    case v1::DIRECTION_EDIT_SUBSPACE:
      return "subspace set to harmless mean";
    case v1::DIRECTION_EDIT_RANDOM_ABLATION:
      return "random direction ablated";
    case v1::DIRECTION_EDIT_RANDOM_ADDITION:
      return "random direction added";
    default:
      return "unchanged";
  }
}

std::string RateInWords(const v1::Rate& rate) {
  return absl::StrFormat("%.1f %% [%.1f, %.1f]", 100 * rate.rate(), 100 * rate.lower(), 100 * rate.upper());
}

std::string EstimateInWords(const v1::Estimate& estimate) {
  return absl::StrFormat("%.3f [%.3f, %.3f]", estimate.mean(), estimate.lower(), estimate.upper());
}

}  // namespace mechinterp
