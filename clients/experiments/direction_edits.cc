#include "clients/experiments/direction_edits.h"

#include "clients/experiments/direction_vectors.h"
#include "services/common/tensor_proto.h"

namespace mechinterp {
namespace {

v1::Tensor ToTensor(absl::Span<const float> vector) {
  return MakeTensor({static_cast<int64_t>(vector.size())}, vector);
}

}  // namespace

std::vector<v1::Intervention> ProjectOut(absl::Span<const std::vector<float>> units) {
  std::vector<v1::Intervention> interventions;
  for (const std::vector<float>& unit : units) {
    v1::Intervention& intervention = interventions.emplace_back();
    for (const v1::HookPoint point :
         {v1::HOOK_POINT_RESID_PRE, v1::HOOK_POINT_ATTN_OUT, v1::HOOK_POINT_MLP_OUT}) {
      intervention.mutable_sites()->add_points(point);
    }
    *intervention.mutable_projection_removal()->mutable_direction() = ToTensor(unit);
  }
  return interventions;
}

std::vector<v1::Intervention> AddTo(uint32_t layer, absl::Span<const float> vector) {
  v1::Intervention intervention;
  intervention.mutable_site()->set_point(v1::HOOK_POINT_RESID_PRE);
  intervention.mutable_site()->set_layer(layer);
  *intervention.mutable_addition()->mutable_vector() = ToTensor(vector);
  return {intervention};
}

std::vector<v1::Intervention> SetPart(absl::Span<const std::vector<float>> units,
                                      absl::Span<const absl::Span<const float>> mean) {
  std::vector<v1::Intervention> interventions = ProjectOut(units);
  for (uint32_t layer = 0; layer < mean.size(); ++layer) {
    interventions.push_back(AddTo(layer, PartWithin(mean[layer], units)).front());
  }
  return interventions;
}

}  // namespace mechinterp
