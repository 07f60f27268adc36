#ifndef DATA_TRAINER_CORPUS_H_
#define DATA_TRAINER_CORPUS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/trainer/grammar.h"
#include "data/trainer/prompt_pairs.h"
#include "data/trainer/random.h"

namespace mechinterp::trainer {

// One training example. `system` is empty when there is no system message.
struct Conversation {
  std::string system;
  std::string user;
  std::string assistant;
  bool harmful = false;
};

// A verb-object pair of the grammar, by its place in it.
struct Combination {
  size_t relation = 0;
  size_t verb = 0;
  size_t object = 0;
};

// All verb-object pairs of one class.
std::vector<Combination> Combinations(const Grammar& grammar, bool harmful);

// True when one of `prompts` asks for `combination`, under any determiner. Such
// a pair is kept out of the training text altogether, not only that prompt.
bool OccursIn(const Grammar& grammar, const Combination& combination,
              const std::vector<std::string>& prompts);

// The verb phrase of `combination` put into `way`.
std::string RenderPrompt(const Template& way, const std::string& request);

// The training text: an endless stream of conversations drawn from a grammar
// less the pairs held out. Immutable: Sample may be called from any thread with
// a Random of its own.
class Corpus {
 public:
  // Errors: FailedPrecondition when the held-out prompts leave a category
  // without examples of a class.
  static absl::StatusOr<Corpus> Create(const Grammar& grammar, const std::vector<PromptSet>& held_out);

  // Half harmful, half not, with a little small talk among the latter.
  Conversation Sample(Random& random) const;

  size_t combination_count(bool harmful) const;

 private:
  explicit Corpus(Grammar grammar) : grammar_(std::move(grammar)) {}
  const Combination& SamplePair(bool harmful, Random& random) const;
  std::string SampleRequest(const Combination& pair, Random& random) const;
  std::string SampleContext(Random& random) const;
  std::string SamplePrompt(const Template& way, const std::string& request, Random& random) const;
  std::string Refuse(const std::string& category, const std::string& request, Random& random) const;
  std::string Answer(const Template& way, const std::string& steps, const std::string& request,
                     Random& random) const;

  Grammar grammar_;
  // [class][category][relation] -> its pairs, so that large relations do not
  // crowd out small ones.
  using ByRelation = std::vector<std::vector<Combination>>;
  std::vector<ByRelation> pairs_[2];
};

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_CORPUS_H_
