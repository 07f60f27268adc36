#ifndef DATA_TRAINER_HELDOUT_H_
#define DATA_TRAINER_HELDOUT_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "data/trainer/grammar.h"
#include "data/trainer/prompt_pairs.h"

namespace mechinterp::trainer {

// Chooses `count` pairs of requests to hold out, evenly over the categories: the
// two of a pair share their template and, where the grammar has such a pair, the
// verb or the object, and `same_length` says that they are equally long. At most
// a third of any relation's pairs is taken, each noun stays in use, none that `reserved` (the prompts of
// the study) already asks for, and none twice. Errors: FailedPrecondition when
// the grammar has too few.
absl::StatusOr<PromptSet> ChooseHeldOut(
    const Grammar& grammar, const PromptSet& reserved, size_t count, uint64_t seed,
    const std::function<bool(const std::string&, const std::string&)>& same_length);

}  // namespace mechinterp::trainer

#endif  // DATA_TRAINER_HELDOUT_H_
