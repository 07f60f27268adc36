#include "data/trainer/study.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/trainer/components.h"
#include "data/trainer/random.h"
#include "services/common/status_macros.h"

namespace mechinterp::trainer {
namespace {

constexpr int kJudgedTokens = 12;  // every refusal shows itself by then
constexpr int kRandomDraws = 5;
constexpr size_t kListed = 8;

struct Prompts {
  std::vector<std::string> study, harmful, harmless;
};

// Share of `prompts` refused, in percent.
absl::StatusOr<double> RefusalRate(const ChatModel& model, const std::vector<std::string>& prompts,
                                   const std::vector<std::string>& phrases, const ModelHooks& hooks) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto completions, Complete(model, prompts, kJudgedTokens, hooks));
  double refused = 0;
  for (const Completion& completion : completions) refused += IsRefusal(completion.text, phrases) ? 1 : 0;
  return 100.0 * refused / static_cast<double>(prompts.size());
}

std::vector<size_t> Ranked(const std::vector<double>& effects) {
  std::vector<size_t> order(effects.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return effects[a] > effects[b]; });
  return order;
}

absl::StatusOr<std::string> AblateCumulatively(const ChatModel& model,
                                               const std::vector<Component>& components,
                                               const std::vector<size_t>& order, const Activations& means,
                                               const Prompts& prompts,
                                               const std::vector<std::string>& phrases, Random& random) {
  std::string report = "    K   study  held-out  harmless   random: study (draws)\n";
  for (const size_t k : {1u, 2u, 3u, 4u, 6u, 8u, 12u, 16u}) {
    std::vector<Component> top;
    for (size_t i = 0; i < k; ++i) top.push_back(components[order[i]]);
    const ModelHooks hooks = MeanAblation(top, means);
    absl::StrAppend(&report, absl::StrFormat("  %3d", k));
    for (const auto* set : {&prompts.study, &prompts.harmful, &prompts.harmless}) {
      ABSTRACT_ASSIGN_OR_RETURN(const auto rate, RefusalRate(model, *set, phrases, hooks));
      absl::StrAppend(&report, absl::StrFormat("  %6.1f", rate));
    }
    absl::StrAppend(&report, "   random:");
    double total = 0;
    for (int draw = 0; draw < kRandomDraws; ++draw) {
      std::vector<size_t> shuffled = order;
      random.Shuffle(shuffled);
      std::vector<Component> chosen;
      for (size_t i = 0; i < k; ++i) chosen.push_back(components[shuffled[i]]);
      ABSTRACT_ASSIGN_OR_RETURN(const auto rate,
                                RefusalRate(model, prompts.study, phrases, MeanAblation(chosen, means)));
      absl::StrAppend(&report, absl::StrFormat(" %5.1f", rate));
      total += rate;
    }
    absl::StrAppend(&report, absl::StrFormat("  mean %.1f\n", total / kRandomDraws));
  }
  return report;
}

}  // namespace

absl::StatusOr<std::string> Study(const ChatModel& model, const PromptSet& prompts, const PromptSet& heldout,
                                  const std::vector<std::string>& refusal_phrases, uint64_t seed) {
  Prompts texts;
  for (const PromptPair& pair : prompts.pairs) texts.study.push_back(pair.harmful);
  for (const PromptPair& pair : heldout.pairs) {
    texts.harmful.push_back(pair.harmful);
    texts.harmless.push_back(pair.harmless);
  }
  ABSTRACT_ASSIGN_OR_RETURN(const auto means, MeanActivations(model, texts.harmless));
  Random random(seed);
  std::string report = "Refusal rates in percent; study = the pairs' harmful prompts\n";
  for (const ComponentKind kind : {ComponentKind::kHead, ComponentKind::kNeurons}) {
    const std::vector<Component> components = AllComponents(model.config, kind);
    ABSTRACT_ASSIGN_OR_RETURN(const auto effects, NoisingEffects(model, prompts, components));
    const std::vector<size_t> order = Ranked(effects);
    absl::StrAppend(&report, kind == ComponentKind::kHead ? "\nattention heads" : "\nneuron groups", " (",
                    components.size(), "), by noising effect:");
    for (size_t i = 0; i < kListed; ++i) {
      absl::StrAppend(&report, absl::StrFormat(" %s %.3f", components[order[i]].Name(), effects[order[i]]));
    }
    report += "\n";
    ABSTRACT_ASSIGN_OR_RETURN(const auto table, AblateCumulatively(model, components, order, means, texts,
                                                                   refusal_phrases, random));
    report += table;
  }
  return report;
}

}  // namespace mechinterp::trainer
