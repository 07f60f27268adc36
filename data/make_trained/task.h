#ifndef DATA_MAKE_TRAINED_TASK_H_
#define DATA_MAKE_TRAINED_TASK_H_

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/make_trained/circuit.h"
#include "data/trainer/random.h"
#include "services/engine/base/token_id.h"
#include "services/engine/tokenizer/tokenizer.h"

namespace mechinterp::make_trained {

using engine::TokenId;
using trainer::Random;

struct Example {
  std::vector<TokenId> prompt;
  std::vector<TokenId> answer;  // what the model is to go on with; only its first token is the circuit's
  Value facts;                  // what the circuit's input variable holds
};

// Two prompts whose tokens stand in the same places, so that any activation of one can take the
// place of the other's.
struct ExamplePair {
  std::string id;  // of those that truth.json names
  Example base, source;
  std::string differs_in;  // likewise
};

// Prompts, and the circuit by which a network is to answer them.
struct Task {
  std::string name, description;  // its kind's
  Circuit circuit;
  // First tokens by which each answer may begin; the first of each is the one that is taught.
  std::vector<std::vector<TokenId>> answers;
  // A random pair. Depends on the generator alone; may be called from one thread at a time.
  std::function<ExamplePair(Random&)> draw;
  // For truth.json: in each, every variable takes the answer all the way to the source's, or leaves
  // it. Trained on only where `teaches_pairs`.
  std::vector<ExamplePair> pairs;
  bool teaches_pairs = false;
  int end_of_turn = -1;  // where the user's turn ends, from the prompt's end
};

struct TaskOptions {
  std::string tokenizer;  // a folder
  std::string prompts, phrases;
};

// What the makers of tasks are given. The circuit lies where `random` says.
struct TaskContext {
  const engine::Tokenizer& tokenizer;
  const EdgeSpace& space;
  const TaskOptions& options;
  Random& random;
};

struct TaskKind {
  std::string name;
  std::string description;
  absl::StatusOr<Task> (*make)(const TaskContext& context);
};

const std::vector<TaskKind>& TaskKinds();

absl::StatusOr<Task> MakeRefusalTask(const TaskContext& context);
absl::StatusOr<Task> MakeComparisonTask(const TaskContext& context);
absl::StatusOr<Task> MakeLookupTask(const TaskContext& context);

// The tokens of these words, each of which must be one. Errors: FailedPrecondition naming the
// word, for a tokenizer that splits it.
absl::StatusOr<std::vector<TokenId>> WordTokens(const engine::Tokenizer& tokenizer,
                                                const std::vector<std::string>& words);

// Draws prompts to learn from and, of a fifth of all prompts, others that are never learned from.
class Sampler {
 public:
  explicit Sampler(const Task& task);

  ExamplePair ToTrainOn(Random& random) const;
  ExamplePair HeldOut(Random& random) const;

 private:
  bool IsHeldOut(const Example& example) const;

  const Task& task_;
  std::set<std::vector<TokenId>> taught_;  // whatever the hash says
};

// Moves pairs of the wanted kind from the task's held-out prompts to Task::pairs. Errors:
// Internal, when none are found.
absl::Status ChoosePairs(const std::string& differs_in, int count, const EdgeSpace& space,
                         const std::function<bool(const ExamplePair&)>& is_wanted, Task& task);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_TASK_H_
