#include "data/make_trained/task.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/hash.h"

namespace mechinterp::make_trained {
namespace {

constexpr uint64_t kHeldOutShare = 5;  // one in so many
constexpr double kPairShare = 0.25;    // of training, where the task's own pairs are taught

uint64_t HashOf(const std::vector<TokenId>& ids) {
  uint64_t hash = kFnv1aBasis;
  for (const TokenId id : ids) hash = Fnv1a(absl::StrCat(id, ","), hash);
  return SplitMix64(hash).Next();
}

// Whether noising and denoising each variable give the pair's one answer or the other, and the
// same of the two.
bool HasPlainEffects(const ExamplePair& pair, const EdgeSpace& space, const Circuit& circuit) {
  const int base = circuit.Answer(space, pair.base.facts), source = circuit.Answer(space, pair.source.facts);
  if (base == source) return false;
  for (const Variable& variable : circuit.variables) {
    EdgeMask mask = space.NoEdges();
    for (int receiver = 0; receiver < space.receiver_count(); ++receiver) {
      mask[space.At({variable.sender, receiver})] = 1;
    }
    const int noised = circuit.Answer(space, pair.base.facts, pair.source.facts, mask);
    const int denoised = circuit.Answer(space, pair.source.facts, pair.base.facts, mask);
    const bool moves = noised == source && denoised == base, stays = noised == base && denoised == source;
    if (!moves && !stays) return false;
  }
  return true;
}

}  // namespace

const std::vector<TaskKind>& TaskKinds() {
  static const auto& kinds = *new std::vector<TaskKind>{
      {"refusal", "two heads -> an MLP that needs both -> a head: verb and object are harmful",
       MakeRefusalTask},
      {"comparison", "two heads -> an MLP: is one digit more than another", MakeComparisonTask},
      {"lookup", "a head that knows what stood before -> a head that finds it: whose is what",
       MakeLookupTask},
  };
  return kinds;
}

absl::StatusOr<std::vector<TokenId>> WordTokens(const engine::Tokenizer& tokenizer,
                                                const std::vector<std::string>& words) {
  std::vector<TokenId> tokens;
  for (const std::string& word : words) {
    const std::vector<TokenId> ids = tokenizer.Encode(word);
    if (ids.size() != 1) {
      return absl::FailedPreconditionError(absl::StrCat("the tokenizer has no token '", word, "'"));
    }
    tokens.push_back(ids.front());
  }
  return tokens;
}

Sampler::Sampler(const Task& task) : task_(task) {
  if (!task.teaches_pairs) return;
  for (const ExamplePair& pair : task.pairs) {
    taught_.insert(pair.base.prompt);
    taught_.insert(pair.source.prompt);
  }
}

bool Sampler::IsHeldOut(const Example& example) const {
  return HashOf(example.prompt) % kHeldOutShare == 0 && !taught_.contains(example.prompt);
}

ExamplePair Sampler::ToTrainOn(Random& random) const {
  if (task_.teaches_pairs && random.Chance(kPairShare)) return random.Choose(task_.pairs);
  while (true) {
    ExamplePair pair = task_.draw(random);
    if (!IsHeldOut(pair.base) && !IsHeldOut(pair.source)) return pair;
  }
}

ExamplePair Sampler::HeldOut(Random& random) const {
  while (true) {
    ExamplePair pair = task_.draw(random);
    if (IsHeldOut(pair.base) && IsHeldOut(pair.source)) return pair;
  }
}

absl::Status ChoosePairs(const std::string& differs_in, int count, const EdgeSpace& space,
                         const std::function<bool(const ExamplePair&)>& is_wanted, Task& task) {
  constexpr int kTries = 1'000'000;
  Random random(Fnv1a(differs_in));
  const Sampler sampler(task);
  int found = 0;
  for (int i = 0; i < kTries && found < count; ++i) {
    ExamplePair pair = sampler.HeldOut(random);
    if (!is_wanted(pair) || !HasPlainEffects(pair, space, task.circuit)) continue;
    pair.id = absl::StrCat(differs_in, "-", ++found);
    pair.differs_in = differs_in;
    task.pairs.push_back(std::move(pair));
  }
  if (found == count) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("too few pairs differ in ", differs_in, " alone"));
}

}  // namespace mechinterp::make_trained
