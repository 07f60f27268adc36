#include "tests/clients/toy_activations.h"

#include "absl/strings/str_cat.h"
#include "tests/clients/toy_model.h"

namespace mechinterp::testing {
namespace {

// In [-1, 1), by a hash (FNV-1a, then SplitMix64's finish) of what it depends on.
float PseudoRandom(const std::vector<uint32_t>& context, uint32_t stream, uint32_t index) {
  uint64_t hash = 14695981039346656037u;
  const auto add = [&hash](uint32_t value) { hash = (hash ^ value) * 1099511628211u; };
  for (const uint32_t id : context) add(id);
  add(stream);
  add(index);
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  hash ^= hash >> 31;
  return static_cast<float>(hash >> 40) / static_cast<float>(1 << 23) - 1;
}

constexpr uint32_t kLogitStream = 1000;
constexpr uint32_t kNoiseStream = 1001;

}  // namespace

std::vector<float> ToyLogits(const std::vector<uint32_t>& context, const ToyDeviation& deviation) {
  std::vector<float> logits;
  for (uint32_t id = 0; id < kVocabulary; ++id) {
    logits.push_back(3 * PseudoRandom(context, kLogitStream, id) +
                     deviation.logit_noise * PseudoRandom(context, kNoiseStream, id));
  }
  return logits;
}

std::vector<float> ToyResidual(const std::vector<uint32_t>& context, uint32_t layer,
                               const ToyDeviation& deviation) {
  const float scale = 1 + deviation.residual_error * static_cast<float>(layer + 1);
  std::vector<float> residual;
  for (uint32_t i = 0; i < kResidualSize; ++i) residual.push_back(scale * PseudoRandom(context, layer, i));
  return residual;
}

std::vector<Activation> ToyActivations(const google::protobuf::RepeatedField<uint32_t>& token_ids,
                                       const google::protobuf::RepeatedPtrField<v1::HookSite>& sites,
                                       const ToyDeviation& deviation) {
  std::vector<Activation> activations;
  for (const v1::HookSite& site : sites) {
    const bool is_logits = site.point() == v1::HOOK_POINT_LOGITS;
    Activation& activation = activations.emplace_back();
    std::vector<uint32_t> context;
    for (const uint32_t id : token_ids) {
      context.push_back(id);
      const std::vector<float> row =
          is_logits ? ToyLogits(context, deviation) : ToyResidual(context, site.layer(), deviation);
      activation.values.insert(activation.values.end(), row.begin(), row.end());
    }
    activation.info.set_name(is_logits ? "logits"
                                       : absl::StrCat("blocks.", site.layer(), ".hook_resid_post"));
    *activation.info.mutable_site() = site;
    activation.info.set_data_type(v1::DATA_TYPE_FLOAT32);
    activation.info.add_shape(token_ids.size());
    activation.info.add_shape(is_logits ? kVocabulary : kResidualSize);
    activation.info.set_byte_count(activation.values.size() * sizeof(float));
  }
  return activations;
}

}  // namespace mechinterp::testing
