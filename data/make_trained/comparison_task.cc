// comparison: "... is7 more than3?" -> " right" or " false".

#include <algorithm>
#include <utility>

#include "data/make_trained/task.h"
#include "services/common/status_macros.h"

namespace mechinterp::make_trained {
namespace {

constexpr int kDigits = 10;
constexpr int kMostFillers = 3;  // words before the question, so that places are not fixed

struct Words {
  TokenId begin = 0;
  std::vector<TokenId> digits, fillers, frame;  // frame: is more than ?
  TokenId right = 0, wrong = 0;
};

absl::StatusOr<Words> FindWords(const engine::Tokenizer& tokenizer) {
  Words words;
  std::vector<std::string> digits;
  for (int i = 0; i < kDigits; ++i) digits.push_back(std::to_string(i));
  ABSTRACT_ASSIGN_OR_RETURN(words.digits, WordTokens(tokenizer, digits));
  ABSTRACT_ASSIGN_OR_RETURN(words.fillers,
                            WordTokens(tokenizer, {" first", " then", " so", " well", " again"}));
  ABSTRACT_ASSIGN_OR_RETURN(words.frame, WordTokens(tokenizer, {" is", " more", " than", "?"}));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> rest,
                            WordTokens(tokenizer, {"<|begin_of_text|>", " right", " false"}));
  words.begin = rest[0], words.right = rest[1], words.wrong = rest[2];
  return words;
}

Example MakeExample(const Words& words, const std::vector<TokenId>& fillers, int first, int second) {
  Example example;
  example.prompt = {words.begin};
  example.prompt.insert(example.prompt.end(), fillers.begin(), fillers.end());
  for (const TokenId id : {words.frame[0], words.digits[static_cast<size_t>(first)], words.frame[1],
                           words.frame[2], words.digits[static_cast<size_t>(second)], words.frame[3]}) {
    example.prompt.push_back(id);
  }
  example.answer = {first > second ? words.right : words.wrong};
  example.facts = {first, second};
  return example;
}

// Fillers differ between the two: nothing may go by them. Half of the pairs differ in one digit.
ExamplePair DrawPair(const Words& words, Random& random) {
  std::vector<TokenId> fillers(random.Index(kMostFillers + 1)), others(fillers.size());
  for (TokenId& filler : fillers) filler = random.Choose(words.fillers);
  for (TokenId& filler : others) filler = random.Choose(words.fillers);
  int digits[4];
  for (int& digit : digits) digit = static_cast<int>(random.Index(kDigits));
  if (random.Chance(0.5)) {
    const size_t kept = random.Index(2);
    digits[2 + kept] = digits[kept];
  }
  ExamplePair pair;
  pair.base = MakeExample(words, fillers, digits[0], digits[1]);
  pair.source = MakeExample(words, others, digits[2], digits[3]);
  return pair;
}

Circuit MakeCircuit(const EdgeSpace& space, Random& random) {
  const int mlp = static_cast<int>(random.Index(static_cast<size_t>(space.layers())));
  const size_t layers = static_cast<size_t>(mlp) + 1, heads = static_cast<size_t>(space.heads());
  const int layer_a = static_cast<int>(random.Index(layers)),
            layer_b = static_cast<int>(random.Index(layers));
  const int head_a = static_cast<int>(random.Index(heads));
  // Another key/value head, where they share a layer: one value cannot be patched for one alone.
  int head_b = static_cast<int>(random.Index(heads));
  if (layer_a == layer_b && head_a / space.group_size() == head_b / space.group_size()) {
    head_b = (head_b + space.group_size()) % space.heads();
  }
  const auto first = [](const std::vector<Value>& seen) { return Value{seen[0][0]}; };
  const auto second = [](const std::vector<Value>& seen) { return Value{seen[0][1]}; };
  const auto compare = [](const std::vector<Value>& seen) { return Value{seen[0][0] > seen[1][0] ? 0 : 1}; };
  return {{{EdgeSpace::kEmbed, "says which digits stand where"},
           {space.Head(layer_a, head_a),
            "moves the first digit to the question mark",
            {{0, space.Value(layer_a, head_a / space.group_size())}},
            first},
           {space.Head(layer_b, head_b),
            "moves the second digit to the question mark",
            {{0, space.Value(layer_b, head_b / space.group_size())}},
            second},
           {space.Mlp(mlp), "compares them", {{1, space.MlpIn(mlp)}, {2, space.MlpIn(mlp)}}, compare},
           {EdgeSpace::kEmbed, "answers", {{3, space.Final()}}, first}}};
}

}  // namespace

absl::StatusOr<Task> MakeComparisonTask(const TaskContext& context) {
  ABSTRACT_ASSIGN_OR_RETURN(const Words words, FindWords(context.tokenizer));
  Task task;
  task.circuit = MakeCircuit(context.space, context.random);
  task.answers = {{words.right}, {words.wrong}};
  task.draw = [words](Random& random) { return DrawPair(words, random); };
  const auto differ = [](size_t fact) {
    return [fact](const ExamplePair& pair) {
      return pair.base.facts[fact] != pair.source.facts[fact] &&
             pair.base.facts[1 - fact] == pair.source.facts[1 - fact];
    };
  };
  ABSTRACT_RETURN_IF_ERROR(ChoosePairs("first", 12, context.space, differ(0), task));
  ABSTRACT_RETURN_IF_ERROR(ChoosePairs("second", 12, context.space, differ(1), task));
  return task;
}

}  // namespace mechinterp::make_trained
