// refusal: the study's prompts, refused where verb and object are both harmful.

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "data/make_planted/answers.h"
#include "data/make_planted/words.h"
#include "data/make_trained/task.h"
#include "services/common/status_macros.h"

namespace mechinterp::make_trained {
namespace {

using make_planted::Answers;
using make_planted::EncodedPair;
using make_planted::WordClass;

// Where a prompt's verb and object stand; other words are put there.
struct Template {
  std::vector<TokenId> ids;
  size_t verb = 0, object = 0;
};

struct Material {
  make_planted::Words words;
  Answers answers;
  std::vector<Template> templates;
  // Words to put in, [harmful]
  std::vector<TokenId> verbs[2], objects[2];
};

// The word of the highest level, if there is one.
std::optional<size_t> PlaceOf(const WordClass& words, const std::vector<TokenId>& ids) {
  std::optional<size_t> place;
  int level = 0, count = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = words.words.find(ids[i]);
    if (found == words.words.end() || found->second.level < level) continue;
    count = found->second.level > level ? 1 : count + 1;
    level = found->second.level, place = i;
  }
  return count == 1 ? place : std::nullopt;
}

void SplitByHarm(const WordClass& from, std::vector<TokenId> (&into)[2]) {
  for (const auto& [id, word] : from.words) into[word.harmful ? 1 : 0].push_back(id);
}

// Unset where it cannot be said which of several words is meant.
std::optional<Example> MakeExample(const Material& material, std::vector<TokenId> ids) {
  const double verb = material.words.verbs.HarmOf(ids), object = material.words.objects.HarmOf(ids);
  if ((verb != 0 && verb != 1) || (object != 0 && object != 1)) return std::nullopt;
  const bool refuses = verb + object == 2;
  return Example{std::move(ids),
                 refuses ? material.answers.refusal : material.answers.compliance,
                 {static_cast<int>(verb), static_cast<int>(object)}};
}

Example DrawExample(const Material& material, const Template& from, Random& random) {
  constexpr double kHarmful = 0.6;
  while (true) {
    std::vector<TokenId> ids = from.ids;
    ids[from.verb] = random.Choose(material.verbs[random.Chance(kHarmful) ? 1 : 0]);
    ids[from.object] = random.Choose(material.objects[random.Chance(kHarmful) ? 1 : 0]);
    if (auto example = MakeExample(material, std::move(ids))) return *std::move(example);
  }
}

ExamplePair DrawPair(const Material& material, Random& random) {
  const Template& from = random.Choose(material.templates);
  ExamplePair pair;
  pair.base = DrawExample(material, from, random);
  pair.source = DrawExample(material, from, random);
  return pair;
}

absl::StatusOr<Material> FindMaterial(const TaskContext& context) {
  Material material;
  ABSTRACT_ASSIGN_OR_RETURN(material.words,
                            make_planted::FindWords(context.options.prompts, context.tokenizer));
  for (const int i : PairsToldByVerbAndObject(material.words)) {
    const EncodedPair& pair = material.words.pairs[static_cast<size_t>(i)];
    const auto verb = PlaceOf(material.words.verbs, pair.harmful);
    const auto object = PlaceOf(material.words.objects, pair.harmful);
    if (verb && object && *verb != *object) material.templates.push_back({pair.harmful, *verb, *object});
  }
  SplitByHarm(material.words.verbs, material.verbs);
  SplitByHarm(material.words.objects, material.objects);
  for (const auto* words : {&material.verbs, &material.objects}) {
    if ((*words)[0].empty() || (*words)[1].empty() || material.templates.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(context.options.prompts, ": verb and object tell too few of the pairs"));
    }
  }
  const EncodedPair& example = material.words.pairs.front();
  const TokenId end_of_turn =
      example.harmful[example.harmful.size() - static_cast<size_t>(example.tail_length)];
  ABSTRACT_ASSIGN_OR_RETURN(
      material.answers, make_planted::LoadAnswers(context.options.phrases, context.tokenizer, end_of_turn));
  return material;
}

Circuit MakeCircuit(const EdgeSpace& space, Random& random) {
  const auto pick = [&](int below) { return static_cast<int>(random.Index(static_cast<size_t>(below))); };
  const int mlp = pick(space.layers() - 1);
  const int copier_layer = mlp + 1 + pick(space.layers() - 1 - mlp), copier = pick(space.heads());
  const int verb_layer = pick(mlp + 1), object_layer = pick(mlp + 1);
  const int verb = pick(space.heads());
  int object = pick(space.heads());
  // As in comparison: not of one key/value head.
  if (verb_layer == object_layer && verb / space.group_size() == object / space.group_size()) {
    object = (object + space.group_size()) % space.heads();
  }
  const auto first = [](const std::vector<Value>& seen) { return Value{seen[0][0]}; };
  const auto second = [](const std::vector<Value>& seen) { return Value{seen[0][1]}; };
  const auto both = [](const std::vector<Value>& seen) { return Value{seen[0][0] & seen[1][0]}; };
  const auto answer = [](const std::vector<Value>& seen) { return Value{1 - seen[0][0]}; };
  return {
      {{EdgeSpace::kEmbed, "says which words are harmful"},
       {space.Head(verb_layer, verb),
        "moves the verb's harm to the end of the turn",
        {{0, space.Value(verb_layer, verb / space.group_size())}},
        first},
       {space.Head(object_layer, object),
        "moves the object's harm to the end of the turn",
        {{0, space.Value(object_layer, object / space.group_size())}},
        second},
       {space.Mlp(mlp), "verb and object are harmful", {{1, space.MlpIn(mlp)}, {2, space.MlpIn(mlp)}}, both},
       {space.Head(copier_layer, copier),
        "moves that to the last position",
        {{3, space.Value(copier_layer, copier / space.group_size())}},
        first},
       {EdgeSpace::kEmbed, "answers", {{4, space.Final()}}, answer}}};
}

// First the token that the answer's text begins with.
std::vector<TokenId> Openings(const std::vector<TokenId>& all, TokenId first) {
  std::vector<TokenId> ordered = {first};
  for (const TokenId id : all) {
    if (id != first) ordered.push_back(id);
  }
  return ordered;
}

}  // namespace

absl::StatusOr<Task> MakeRefusalTask(const TaskContext& context) {
  ABSTRACT_ASSIGN_OR_RETURN(const Material material, FindMaterial(context));
  Task task;
  task.circuit = MakeCircuit(context.space, context.random);
  task.answers = {Openings(material.answers.refusal_openings, material.answers.refusal.front()),
                  Openings(material.answers.compliance_openings, material.answers.compliance.front())};
  task.draw = [material](Random& random) { return DrawPair(material, random); };
  for (const int i : PairsToldByVerbAndObject(material.words)) {
    const EncodedPair& pair = material.words.pairs[static_cast<size_t>(i)];
    auto harmful = MakeExample(material, pair.harmful), harmless = MakeExample(material, pair.harmless);
    if (!harmful || !harmless) continue;
    const bool in_verb = harmful->facts[0] != harmless->facts[0];
    task.pairs.push_back({pair.id, *std::move(harmful), *std::move(harmless), in_verb ? "verb" : "object"});
  }
  task.teaches_pairs = true;
  task.end_of_turn = -material.words.pairs.front().tail_length;
  return task;
}

}  // namespace mechinterp::make_trained
