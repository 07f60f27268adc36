#include "clients/experiments/direction_parts.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::StatusOr<DirectionParts::Parts> DirectionParts::OnValidation(
    std::string_view stage, v1::PromptClass prompt_class, size_t value_count, int runs,
    const std::function<absl::StatusOr<v1::DirectionPart>(const v1::Prompt& prompt)>& compute) {
  const std::string name(stage), of_class(PromptClassName(prompt_class));
  std::vector<std::string> keys;
  for (const PromptPair& pair : split_.validation)
    keys.push_back(absl::StrCat(name, "/", pair.id, "/", of_class));
  run_count_ += runs * static_cast<int>(keys.size());
  return RunParts<v1::DirectionPart>(
      context_, absl::StrCat(name, ", ", of_class), keys,
      [&](int i) {
        return compute(UserPrompt(split_.validation[static_cast<size_t>(i)].prompt(prompt_class)));
      },
      {[runs](const auto&) { return runs; },
       [value_count](int, const v1::DirectionPart& part) { return HasValues(part, value_count); }});
}

absl::StatusOr<DirectionParts::Parts> DirectionParts::ScoreOnValidation(std::string_view stage,
                                                                        v1::PromptClass prompt_class,
                                                                        absl::Span<const EditSet> sets) {
  return OnValidation(stage, prompt_class, 2 * sets.size() + 1, static_cast<int>(sets.size()) + 1,
                      [&](const v1::Prompt& prompt) { return probe_.Score(prompt, sets); });
}

absl::StatusOr<std::vector<std::vector<float>>> DirectionParts::OfTrainingPairs(
    std::string_view stage, const StreamSite& site, int runs,
    const std::function<absl::StatusOr<v1::DirectionPart>(const v1::Prompt& harmful,
                                                          const v1::Prompt& harmless)>& compute) {
  constexpr size_t kMostVectors = 3;
  const size_t width = probe_.width();
  std::vector<std::string> keys;
  for (const PromptPair& pair : split_.training) {
    keys.push_back(absl::StrCat(std::string(stage), "/", site.layer, "/", site.position, "/", pair.id));
  }
  run_count_ += runs * static_cast<int>(keys.size());
  ABSTRACT_ASSIGN_OR_RETURN(
      const Parts parts, RunParts<v1::DirectionPart>(
                             context_, stage, keys,
                             [&](int i) {
                               const PromptPair& pair = split_.training[static_cast<size_t>(i)];
                               return compute(UserPrompt(pair.harmful), UserPrompt(pair.harmless));
                             },
                             {[runs](const auto&) { return runs; },
                              [width](int, const v1::DirectionPart& part) {
                                const size_t count = part.tensor().size() / sizeof(float) / width;
                                return count >= 1 && count <= kMostVectors && HasTensor(part, count * width);
                              }}));
  std::vector<std::vector<float>> vectors;
  for (const v1::DirectionPart& part : parts) {
    const std::vector<float> values = TensorOf(part);
    for (size_t first = 0; first < values.size(); first += width) {
      const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first);
      vectors.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(width));
    }
  }
  return vectors;
}

double MeanValue(const DirectionParts::Parts& parts, int index) {
  double sum = 0;
  for (const v1::DirectionPart& part : parts) sum += part.values(index);
  return sum / static_cast<double>(parts.size());
}

}  // namespace mechinterp
