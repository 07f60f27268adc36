#include "tests/data/planted_study.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <utility>

#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "services/engine/operations/patch_run.h"
#include "services/engine/operations/sweep.h"
#include "tests/status_matchers.h"

namespace mechinterp::make_planted {
namespace {

namespace fs = std::filesystem;
using engine::HookPoint;
using engine::HookSite;

engine::TokenizedPrompt PromptOf(const std::vector<TokenId>& ids) { return {ids, {}}; }

const std::vector<TokenId>& CleanOf(const EncodedPair& pair, Direction direction) {
  return direction == Direction::kNoising ? pair.harmful : pair.harmless;
}
const std::vector<TokenId>& OtherOf(const EncodedPair& pair, Direction direction) {
  return direction == Direction::kNoising ? pair.harmless : pair.harmful;
}

template <typename T>
T ValueOrFail(absl::StatusOr<T> value) {
  EXPECT_THAT(value, IsOk());
  return value.ok() ? *std::move(value) : T();
}

}  // namespace

PlantedOptions PlantedStudy::Options(const std::string& variant, uint64_t seed, int layers) {
  const std::string data = ABSTRACT_SOURCE_DIR "/data/";
  PlantedOptions options;
  options.variant = variant;
  options.seed = seed;
  options.layers = layers;
  options.d_ff = 48;
  options.tokenizer = data + "models/tiny-llama-refusal";
  options.prompts = data + "prompts.json";
  options.phrases = data + "refusal_phrases.json";
  return options;
}

PlantedStudy::PlantedStudy(const PlantedOptions& options) {
  const fs::path directory = fs::temp_directory_path() / ("abstract-planted-" + std::to_string(::getpid()));
  fs::remove_all(directory);
  const PlantedModel planted = ValueOrFail(MakePlanted(options));
  EXPECT_THAT(WritePlanted(directory.string(), planted), IsOk());
  model_ = ValueOrFail(engine::Model::Load(directory.string()));
  fs::remove_all(directory);  // the engine has mapped what it needs
  words_ = std::make_unique<Words>(ValueOrFail(FindWords(options.prompts, *model_->tokenizer())));
  truth_ = nlohmann::ordered_json::parse(planted.files.at("truth.json"));
  metrics_.refusal_token_ids = truth_["metric"]["refusal_tokens"].get<std::vector<TokenId>>();
  metrics_.compliance_token_ids = truth_["metric"]["compliance_tokens"].get<std::vector<TokenId>>();
  metrics_.top_token_count = 3;
  for (const char* list : {"nodes", "backups", "decoys"}) {
    for (const auto& node : truth_[list]) nodes_[node["name"].get<std::string>()] = node;
  }
}

std::string PlantedStudy::AnswerTo(const std::vector<TokenId>& prompt) {
  engine::DirectExecutor executor(model_);
  engine::RunContext context{executor, {}, {}};
  const std::vector<engine::PrefillRequest> requests = {{PromptOf(prompt), nullptr, 32}};
  auto prefilled = engine::Prefill(context, requests);
  EXPECT_THAT(prefilled, IsOk());
  const auto generation = ValueOrFail(engine::Continue(context, prefilled->front(), {}, {}));
  EXPECT_EQ(generation.finish_reason, engine::FinishReason::kStopToken);
  return model_->tokenizer()->Decode(generation.ids, /*skip_special=*/true);
}

engine::RunMetrics PlantedStudy::Measure(const std::vector<TokenId>& prompt,
                                         const engine::InterventionSet& set) {
  engine::DirectExecutor executor(model_);
  engine::RunContext context{executor, {}, {}};
  engine::PlanCompiler compiler(config());
  Violations violations;
  compiler.Add(PromptOf(prompt), set, {}, violations.root());
  EXPECT_TRUE(violations.empty());
  const auto plans = ValueOrFail(engine::RunSourcesAndFinish(context, compiler));
  return ValueOrFail(engine::RunWithPatch(context, PromptOf(prompt), plans.front(), metrics_, {})).patched;
}

engine::Intervention PlantedStudy::FromOther(const EncodedPair& pair, Direction direction,
                                             HookSite site) const {
  engine::Replacement replacement;
  replacement.source.origin = PromptOf(OtherOf(pair, direction));
  return {site, {}, replacement};
}

engine::Intervention PlantedStudy::HeadFromOther(const EncodedPair& pair, Direction direction, int layer,
                                                 int head) const {
  engine::Intervention intervention = FromOther(pair, direction, {HookPoint::kZ, layer});
  intervention.selector.heads = {head};
  return intervention;
}

engine::Intervention PlantedStudy::NodeFromOther(const EncodedPair& pair, Direction direction,
                                                 const std::string& name) const {
  int layer = 0, index = 0;
  char kind = 0;
  if (std::sscanf(name.c_str(), "L%d.%c%d", &layer, &kind, &index) != 3) {
    return FromOther(pair, direction, {HookPoint::kEmbed, 0});
  }
  if (kind == 'H') return HeadFromOther(pair, direction, layer, index);
  engine::Intervention intervention = FromOther(pair, direction, {HookPoint::kMlpPost, layer});
  intervention.selector.dims = {index};
  return intervention;
}

std::vector<double> PlantedStudy::Effects(const EncodedPair& pair, Direction direction,
                                          const std::vector<engine::InterventionSet>& sets) {
  engine::DirectExecutor executor(model_);
  engine::RunContext context{executor, {}, {}};
  engine::PlanCompiler compiler(config());
  Violations violations;
  const engine::TokenizedPrompt prompt = PromptOf(CleanOf(pair, direction));
  for (const engine::InterventionSet& set : sets) compiler.Add(prompt, set, {}, violations.root());
  EXPECT_TRUE(violations.empty());
  std::vector<double> effects(sets.size(), std::numeric_limits<double>::quiet_NaN());
  const engine::SweepSink sink{[](const engine::SweepBaselines&) { return absl::OkStatus(); },
                               [&](const engine::SweepResult& result) {
                                 if (result.effect) effects[result.set_index] = *result.effect;
                                 return absl::OkStatus();
                               }};
  const auto totals =
      engine::RunPatchSweep(context,
                            {prompt, ValueOrFail(engine::RunSourcesAndFinish(context, compiler)), metrics_,
                             PromptOf(OtherOf(pair, direction))},
                            sink);
  EXPECT_THAT(totals, IsOk());
  return effects;
}

double PlantedStudy::PathEffect(const EncodedPair& pair, Direction direction, const std::string& sender,
                                const std::string& receiver) {
  // The sender's change goes through the residual stream only: what other blocks write stays.
  engine::InterventionSet path = {NodeFromOther(pair, direction, sender)};
  const HookSite from = path.front().site;
  for (int layer = 0; layer < config().layer_count(); ++layer) {
    for (const HookPoint point : {HookPoint::kAttnOut, HookPoint::kMlpOut}) {
      if (layer < from.layer || (layer == from.layer && point < from.point)) continue;
      if (layer == from.layer && from.point == HookPoint::kZ && point == HookPoint::kAttnOut) continue;
      if (layer == from.layer && from.point == HookPoint::kMlpPost) continue;
      engine::Replacement clean;
      clean.source.origin = PromptOf(CleanOf(pair, direction));
      path.push_back({{point, layer}, {}, clean});
    }
  }
  int layer = 0, index = 0;
  char kind = 0;
  if (std::sscanf(receiver.c_str(), "L%d.%c%d", &layer, &kind, &index) != 3) {
    return *engine::Effect(Measure(CleanOf(pair, direction), path), Measure(CleanOf(pair, direction)),
                           Measure(OtherOf(pair, direction)));
  }
  std::vector<HookSite> inputs = {{kind == 'q'   ? HookPoint::kQ
                                   : kind == 'k' ? HookPoint::kK
                                                 : HookPoint::kV,
                                   layer}};
  if (kind == 'N') inputs = {{HookPoint::kMlpPre, layer}, {HookPoint::kMlpPreLinear, layer}};
  engine::DirectExecutor executor(model_);
  engine::RunContext context{executor, {}, {}};
  engine::PlanCompiler compiler(config());
  Violations violations;
  const engine::TokenizedPrompt prompt = PromptOf(CleanOf(pair, direction));
  compiler.Add(prompt, path, {inputs, {}}, violations.root());
  EXPECT_TRUE(violations.empty());
  const auto plans = ValueOrFail(engine::RunSourcesAndFinish(context, compiler));
  const auto run = ValueOrFail(engine::RunWithCache(context, prompt, plans.front()));
  engine::InterventionSet seen;
  for (const HookSite& input : inputs) {
    engine::Replacement replacement;
    replacement.source.origin = run;
    engine::Selector selector;
    (kind == 'N' ? selector.dims : selector.heads) = {index};
    seen.push_back({input, selector, replacement});
  }
  return Effect(pair, direction, seen);
}

double PlantedStudy::Expected(const std::string& node, const EncodedPair& pair, Direction direction) const {
  const auto found = nodes_.find(node);
  if (found == nodes_.end()) return 0;
  if (found->second.contains("pairs")) {
    const auto& pairs = found->second["pairs"];
    if (std::find(pairs.begin(), pairs.end(), pair.id) == pairs.end()) return 0;
  }
  return found->second["effects"][direction == Direction::kNoising ? "noising" : "denoising"].get<double>();
}

}  // namespace mechinterp::make_planted
