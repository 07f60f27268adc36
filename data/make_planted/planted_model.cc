#include "data/make_planted/planted_model.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/make_checkpoint/shape.h"
#include "data/make_checkpoint/tokenizer_files.h"
#include "data/make_planted/distractors.h"
#include "data/make_planted/truth.h"
#include "data/make_planted/variants.h"
#include "nlohmann/json.hpp"
#include "services/common/hash.h"
#include "services/common/status_macros.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_planted {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<const Variant*> FindVariant(const std::string& name) {
  std::vector<std::string> names;
  for (const Variant& variant : Variants()) {
    if (variant.name == name) return &variant;
    names.push_back(variant.name);
  }
  return absl::NotFoundError(absl::StrCat("no variant '", name, "'; there are ", absl::StrJoin(names, ", ")));
}

engine::ModelConfig ShapeOf(const PlantedOptions& options, const engine::Tokenizer& tokenizer) {
  engine::ModelConfig shape;
  shape.architecture = "LlamaForCausalLM";
  shape.layers.resize(options.layers);
  shape.head_count = options.heads;
  shape.key_value_head_count = options.kv_heads;
  shape.head_size = options.head_size;
  shape.d_model = options.d_model;
  shape.d_ff = options.d_ff;
  shape.vocabulary_size = tokenizer.vocab_size();
  shape.context_length = 512;
  shape.rope_theta = 500000;  // Llama 3's
  return shape;
}

// The circuit goes by these tokens, so they must not stand elsewhere in a prompt, but for the
// end of the user's header, where there is no word yet to look at.
absl::Status CheckPlaces(const Words& words, const std::string& path) {
  for (const EncodedPair& pair : words.pairs) {
    for (const auto* ids : {&pair.harmful, &pair.harmless}) {
      const TokenId end_of_turn = (*ids)[ids->size() - pair.tail_length];
      const auto before_last = ids->end() - 1;
      if (std::count(ids->begin(), ids->end(), end_of_turn) == 1 &&
          std::count(ids->begin(), before_last, ids->back()) <= 1) {
        continue;
      }
      return absl::FailedPreconditionError(
          absl::StrCat(path, ": pair ", pair.id, " holds tokens that the template ends with"));
    }
  }
  return absl::OkStatus();
}

Json SizesJson(const engine::ModelConfig& shape) {
  return {{"layers", shape.layer_count()},
          {"heads", shape.head_count},
          {"kv_heads", shape.key_value_head_count},
          {"head_size", shape.head_size},
          {"d_model", shape.d_model},
          {"d_ff", shape.d_ff},
          {"vocabulary", shape.vocabulary_size}};
}

}  // namespace

absl::StatusOr<PlantedModel> MakePlanted(const PlantedOptions& options) {
  ABSTRACT_ASSIGN_OR_RETURN(const Variant* variant, FindVariant(options.variant));
  ABSTRACT_ASSIGN_OR_RETURN(const std::shared_ptr<const engine::Tokenizer> tokenizer,
                            engine::Tokenizer::Load(absl::StrCat(options.tokenizer, "/tokenizer.json")));
  engine::ModelConfig shape = ShapeOf(options, *tokenizer);
  ABSTRACT_RETURN_IF_ERROR(CheckSizes(shape));
  PlantedModel model;
  ABSTRACT_RETURN_IF_ERROR(make_checkpoint::AddTokenizer(options.tokenizer, shape, model.files));
  ABSTRACT_ASSIGN_OR_RETURN(engine::CheckpointFiles config_files,
                            make_checkpoint::ConfigFiles(shape, engine::NumberFormat::kFloat32));
  model.files.merge(config_files);

  ABSTRACT_ASSIGN_OR_RETURN(const Words words, FindWords(options.prompts, *tokenizer));
  ABSTRACT_RETURN_IF_ERROR(CheckPlaces(words, options.prompts));
  if (variant->pairs(words).empty()) {
    return absl::FailedPreconditionError(absl::StrCat(options.prompts, ": a model of variant ", variant->name,
                                                      " would tell none of the pairs"));
  }
  const EncodedPair& example = words.pairs.front();
  const TokenId end_of_turn = example.harmful[example.harmful.size() - example.tail_length];
  ABSTRACT_ASSIGN_OR_RETURN(const Answers answers, LoadAnswers(options.phrases, *tokenizer, end_of_turn));

  // Variants of one seed differ in more than their circuit, as trained models would.
  Random random(SplitMix64(options.seed ^ Fnv1a(variant->name)).Next());
  CircuitBuilder builder(shape, example.harmful.front());
  Planting planting(words, answers, builder, random);
  variant->plant(planting);
  AddDistractors({.word_key = {{planting.word}}, .answer = planting.refuse}, builder, random);
  RotatedModel rotated = RotateWeights(builder, random);
  model.tensors = std::move(rotated.tensors);

  Json truth = {
      {"format", "abstract-planted-circuit"},
      {"version", 1},
      {"variant", variant->name},
      {"description", variant->description},
      {"seed", options.seed},
      {"sizes", SizesJson(shape)},
      {"positions", {{"last", -1}, {"end_of_turn", -example.tail_length}}},
      {"metric",
       {{"refusal_tokens", answers.refusal_openings}, {"compliance_tokens", answers.compliance_openings}}},
      {"answers", {{"refusal", kRefusalText}, {"compliance", kComplianceText}}}};
  truth.update(TruthOf(*variant, planting, builder, answers, rotated.basis));
  model.files["truth.json"] = truth.dump(2) + "\n";
  model.edges = truth["neuron_edges"].get<std::vector<std::string>>();
  model.pair_count = truth["holds_for"].size();
  return model;
}

absl::Status WritePlanted(const std::string& directory, const PlantedModel& model) {
  std::vector<engine::TensorSource> sources;
  for (const WrittenTensor& tensor : model.tensors) {
    sources.push_back(
        {tensor.name, engine::NumberFormat::kFloat32, tensor.shape, [&tensor](const engine::ByteSink& sink) {
           return sink({reinterpret_cast<const std::byte*>(tensor.values.data()),
                        tensor.values.size() * sizeof(float)});
         }});
  }
  return engine::WriteCheckpoint(directory, sources, model.files);
}

}  // namespace mechinterp::make_planted
