// lookup: "tiger cake lion rice bear honey lion" -> " rice".

#include <algorithm>
#include <utility>

#include "data/make_trained/task.h"
#include "services/common/status_macros.h"

namespace mechinterp::make_trained {
namespace {

constexpr size_t kEntries = 3;

struct Words {
  TokenId begin = 0;
  std::vector<TokenId> owners, things;
};

absl::StatusOr<Words> FindWords(const engine::Tokenizer& tokenizer) {
  Words words;
  ABSTRACT_ASSIGN_OR_RETURN(words.owners, WordTokens(tokenizer, {" llama", " tiger", " lion", " bear",
                                                                 " horse", " eagle", " whale", " dolphin"}));
  ABSTRACT_ASSIGN_OR_RETURN(words.things, WordTokens(tokenizer, {" cake", " rice", " cheese", " salad",
                                                                 " honey", " jam", " butter", " eggs"}));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<TokenId> begin, WordTokens(tokenizer, {"<|begin_of_text|>"}));
  words.begin = begin.front();
  return words;
}

struct Entries {
  std::vector<int> owners, things;  // [kEntries], positions in Words
  int asked = 0;                    // an owner
};

int Found(const std::vector<int>& owners, const std::vector<int>& things, int asked) {
  const auto at = std::find(owners.begin(), owners.end(), asked);
  return things[static_cast<size_t>(at - owners.begin())];
}

Example MakeExample(const Words& words, const Entries& entries) {
  Example example;
  example.prompt = {words.begin};
  for (size_t i = 0; i < kEntries; ++i) {
    example.prompt.push_back(words.owners[static_cast<size_t>(entries.owners[i])]);
    example.prompt.push_back(words.things[static_cast<size_t>(entries.things[i])]);
  }
  example.prompt.push_back(words.owners[static_cast<size_t>(entries.asked)]);
  const int found = Found(entries.owners, entries.things, entries.asked);
  example.answer = {words.things[static_cast<size_t>(found)]};
  example.facts = entries.owners;
  example.facts.insert(example.facts.end(), entries.things.begin(), entries.things.end());
  example.facts.push_back(entries.asked);
  return example;
}

std::vector<int> DrawSome(size_t of, Random& random) {
  std::vector<int> all(of);
  for (size_t i = 0; i < of; ++i) all[i] = static_cast<int>(i);
  random.Shuffle(all);
  all.resize(kEntries);
  return all;
}

// Both prompts have the same owners, in any order, so that any of their parts can be exchanged;
// each of the three parts is the same in both at times.
ExamplePair DrawPair(const Words& words, Random& random) {
  Entries base, source;
  base.owners = source.owners = DrawSome(words.owners.size(), random);
  base.things = source.things = DrawSome(words.things.size(), random);
  base.asked = source.asked = random.Choose(base.owners);
  constexpr double kDiffers = 0.6;
  if (random.Chance(kDiffers)) random.Shuffle(source.owners);
  if (random.Chance(kDiffers)) source.things = DrawSome(words.things.size(), random);
  if (random.Chance(kDiffers)) source.asked = random.Choose(base.owners);
  ExamplePair pair;
  pair.base = MakeExample(words, base);
  pair.source = MakeExample(words, source);
  return pair;
}

Circuit MakeCircuit(const EdgeSpace& space, Random& random) {
  const size_t heads = static_cast<size_t>(space.heads());
  const int later = 1 + static_cast<int>(random.Index(static_cast<size_t>(space.layers()) - 1));
  const int earlier = static_cast<int>(random.Index(static_cast<size_t>(later)));
  const int before = static_cast<int>(random.Index(heads)), finder = static_cast<int>(random.Index(heads));
  const int finder_kv = finder / space.group_size();
  const auto owners = [](const std::vector<Value>& seen) {
    return Value(seen[0].begin(), seen[0].begin() + kEntries);
  };
  const auto find = [](const std::vector<Value>& seen) {  // what is asked, the owners, the things
    const Value things(seen[2].begin() + kEntries, seen[2].begin() + 2 * kEntries);
    return Value{Found(seen[1], things, seen[0].back())};
  };
  const auto same = [](const std::vector<Value>& seen) { return seen[0]; };
  return {{{EdgeSpace::kEmbed, "says who and what stands where"},
           {space.Head(earlier, before),
            "moves each owner to the thing behind it",
            {{0, space.Value(earlier, before / space.group_size())}},
            owners,
            /*offset=*/1},
           {space.Head(later, finder),
            "looks for the thing whose owner is asked for, and moves it to the last position",
            {{0, space.Query(later, finder)},
             {1, space.Key(later, finder_kv)},
             {0, space.Value(later, finder_kv)}},
            find},
           {EdgeSpace::kEmbed, "answers", {{2, space.Final()}}, same}}};
}

// Whether the two prompts differ in this part (0 owners, 1 things, 2 what is asked) and no other.
bool DifferOnlyIn(size_t part, const ExamplePair& pair) {
  const Value &a = pair.base.facts, &b = pair.source.facts;
  for (size_t i = 0; i < 3; ++i) {
    const size_t begin = i * kEntries, end = std::min(begin + kEntries, a.size());
    if (std::equal(a.begin() + begin, a.begin() + end, b.begin() + begin) != (i != part)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<Task> MakeLookupTask(const TaskContext& context) {
  ABSTRACT_ASSIGN_OR_RETURN(const Words words, FindWords(context.tokenizer));
  Task task;
  task.circuit = MakeCircuit(context.space, context.random);
  for (const TokenId thing : words.things) task.answers.push_back({thing});
  task.draw = [words](Random& random) { return DrawPair(words, random); };
  const char* parts[] = {"owners", "things", "asked"};
  for (size_t part = 0; part < 3; ++part) {
    ABSTRACT_RETURN_IF_ERROR(ChoosePairs(
        parts[part], 8, context.space, [part](const ExamplePair& pair) { return DifferOnlyIn(part, pair); },
        task));
  }
  return task;
}

}  // namespace mechinterp::make_trained
