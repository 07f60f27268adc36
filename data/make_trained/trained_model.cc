#include "data/make_trained/trained_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "data/make_checkpoint/shape.h"
#include "data/make_checkpoint/tokenizer_files.h"
#include "data/make_planted/answers.h"
#include "data/make_trained/truth.h"
#include "nlohmann/json.hpp"
#include "services/common/hash.h"
#include "services/common/status_macros.h"
#include "services/engine/checkpoint/model_config.h"

namespace mechinterp::make_trained {
namespace {

using Json = nlohmann::ordered_json;

// Tasks of one seed differ in more than their circuit.
uint64_t SeedOf(const TrainedOptions& options) {
  return SplitMix64(options.seed ^ Fnv1a(options.task)).Next();
}

absl::StatusOr<const TaskKind*> FindTask(const std::string& name) {
  std::vector<std::string> names;
  for (const TaskKind& kind : TaskKinds()) {
    if (kind.name == name) return &kind;
    names.push_back(kind.name);
  }
  return absl::NotFoundError(absl::StrCat("no task '", name, "'; there are ", absl::StrJoin(names, ", ")));
}

absl::Status CheckSizes(const TrainedOptions& options) {
  if (options.layers < 2 || options.kv_heads < 2 || options.heads % options.kv_heads != 0 ||
      options.head_size < 2 || options.head_size % 2 != 0 || options.d_model < 1 || options.d_ff < 1) {
    return absl::InvalidArgumentError(
        "a circuit needs two layers and two key/value heads; these divide the heads, whose width is even");
  }
  return absl::OkStatus();
}

engine::ModelConfig ShapeOf(const TrainedOptions& options, const engine::Tokenizer& tokenizer) {
  engine::ModelConfig shape;
  shape.architecture = "LlamaForCausalLM";
  shape.layers.resize(static_cast<size_t>(options.layers));
  shape.head_count = options.heads;
  shape.key_value_head_count = options.kv_heads;
  shape.head_size = options.head_size;
  shape.d_model = options.d_model;
  shape.d_ff = options.d_ff;
  shape.vocabulary_size = static_cast<int>(tokenizer.vocab_size());
  shape.context_length = 512;
  shape.tied_embeddings = true;
  return shape;
}

trainer::ModelConfig ConfigOf(const engine::ModelConfig& shape) {
  trainer::ModelConfig config;
  config.vocab_size = shape.vocabulary_size;
  config.hidden_size = shape.d_model;
  config.layers = shape.layer_count();
  config.heads = shape.head_count;
  config.kv_heads = shape.key_value_head_count;
  config.head_dim = shape.head_size;
  config.intermediate_size = shape.d_ff;
  config.max_positions = shape.context_length;
  config.rope_theta = shape.rope_theta;
  config.norm_epsilon = shape.rms_norm_epsilon;
  return config;
}

Json SizesJson(const trainer::ModelConfig& config) {
  return {{"layers", config.layers},        {"heads", config.heads},
          {"kv_heads", config.kv_heads},    {"head_size", config.head_dim},
          {"d_model", config.hidden_size},  {"d_ff", config.intermediate_size},
          {"vocabulary", config.vocab_size}};
}

std::vector<ExamplePair> HeldOutPairs(const Task& task, int count) {
  const Sampler sampler(task);
  Random random(Fnv1a("held out"));
  std::vector<ExamplePair> pairs;
  for (int i = 0; i < count; ++i) pairs.push_back(sampler.HeldOut(random));
  return pairs;
}

// Of the task's pairs those whose two answers the model gives.
Json HoldsFor(const TrainedModel& model) {
  const PatchingRuns runs(model.config, model.weights, model.task, model.task.pairs);
  const int64_t* given = runs.plain().given.data_ptr<int64_t>();
  const int64_t* answers = runs.rows().answers.data_ptr<int64_t>();
  Json ids = Json::array();
  for (size_t i = 0; i < model.task.pairs.size(); ++i) {
    const size_t source = runs.rows().SourceOf(i);
    if (given[i] == answers[i] && given[source] == answers[source]) ids.push_back(model.task.pairs[i].id);
  }
  return ids;
}

Json MakeTruth(const TrainedOptions& options, const TrainedModel& model) {
  Json truth = {{"format", "abstract-planted-circuit"},
                {"version", 1},
                {"origin", "trained"},
                {"variant", model.task.name},
                {"description", model.task.description},
                {"seed", options.seed},
                {"sizes", SizesJson(model.config)}};
  if (model.task.teaches_pairs) {
    truth["answers"] = {{"refusal", make_planted::kRefusalText},
                        {"compliance", make_planted::kComplianceText}};
  }
  truth.update(TruthOf(model.task, SpaceOf(model.config), *model.tokenizer));
  truth["holds_for"] = HoldsFor(model);
  truth["attempts"] = model.attempts;
  truth["accuracy"] = AccuracyJson(model.accuracies);
  truth["effect_errors"] = EffectErrorsJson(model.effect_errors);
  return truth;
}

}  // namespace

bool HasLearned(const Accuracies& a) {
  constexpr double kWanted = 0.99;
  return std::min({a.behaviour, a.interchange, a.interchange_edges, a.moved, a.strict, a.strict_edges,
                   a.circuit_alone}) >= kWanted;
}

absl::StatusOr<TrainedModel> PrepareTrained(const TrainedOptions& options) {
  ABSTRACT_ASSIGN_OR_RETURN(const TaskKind* kind, FindTask(options.task));
  ABSTRACT_RETURN_IF_ERROR(CheckSizes(options));
  TrainedModel model;
  ABSTRACT_ASSIGN_OR_RETURN(
      model.tokenizer, engine::Tokenizer::Load(absl::StrCat(options.files.tokenizer, "/tokenizer.json")));
  engine::ModelConfig shape = ShapeOf(options, *model.tokenizer);
  ABSTRACT_RETURN_IF_ERROR(make_checkpoint::AddTokenizer(options.files.tokenizer, shape, model.files));
  ABSTRACT_ASSIGN_OR_RETURN(engine::CheckpointFiles config_files,
                            make_checkpoint::ConfigFiles(shape, engine::NumberFormat::kFloat32));
  model.files.merge(config_files);
  model.config = ConfigOf(shape);
  Random random(SeedOf(options));
  ABSTRACT_ASSIGN_OR_RETURN(model.task,
                            kind->make({*model.tokenizer, SpaceOf(model.config), options.files, random}));
  model.task.name = kind->name;
  model.task.description = kind->description;
  return model;
}

absl::StatusOr<TrainedModel> MakeTrained(const TrainedOptions& options, const TrainingReport& report) {
  ABSTRACT_ASSIGN_OR_RETURN(TrainedModel model, PrepareTrained(options));
  CircuitTrainingOptions training = options.training;
  SplitMix64 seeds(SeedOf(options));
  do {
    training.seed = seeds.Next();
    ABSTRACT_ASSIGN_OR_RETURN(model.weights, TrainCircuit(model.config, training, model.task, report));
    model.accuracies = MeasureAccuracies(model.config, model.weights, model.task,
                                         HeldOutPairs(model.task, options.heldout_pairs));
    ++model.attempts;
  } while (model.attempts < options.attempts && !HasLearned(model.accuracies));
  model.effect_errors = MeasureEffects(model.config, model.weights, model.task);
  model.files["truth.json"] = MakeTruth(options, model).dump(2) + "\n";
  return model;
}

absl::Status WriteTrained(const std::string& directory, TrainedModel& model) {
  std::vector<engine::TensorSource> sources;
  for (const trainer::NamedTensor& parameter : model.weights.Named()) {
    const at::Tensor tensor = parameter.tensor->detach().contiguous();
    sources.push_back({parameter.name, engine::NumberFormat::kFloat32, tensor.sizes().vec(),
                       [tensor](const engine::ByteSink& sink) {
                         return sink({reinterpret_cast<const std::byte*>(tensor.data_ptr<float>()),
                                      static_cast<size_t>(tensor.numel()) * sizeof(float)});
                       }});
  }
  return engine::WriteCheckpoint(directory, sources, model.files);
}

}  // namespace mechinterp::make_trained
