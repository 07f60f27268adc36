#ifndef DATA_MAKE_TRAINED_CIRCUIT_H_
#define DATA_MAKE_TRAINED_CIRCUIT_H_

#include <functional>
#include <string>
#include <vector>

#include "data/make_trained/edge_space.h"

namespace mechinterp::make_trained {

// The causal model that a network is trained to implement, and where in the network its
// variables lie. A plain value; may be read from many threads.

// What a variable holds: symbols, numbers, truth values.
using Value = std::vector<int>;

// A variable. The first of a circuit is the input, with the facts of a prompt as its value; the
// last is the answer, an index among the task's answers.
struct Variable {
  int sender = 0;    // where it lies; of the answer nothing
  std::string does;  // a sentence part, for truth.json
  struct Parent {
    int variable = 0;  // an earlier one
    int receiver = 0;  // through which this variable reads it
  };
  std::vector<Parent> parents = {};
  // From the parents' values in their order.
  std::function<Value(const std::vector<Value>&)> compute = nullptr;
  // A head that looks so many tokens back, wherever it is; it is shown this at first. 0: no such.
  int offset = 0;
};

struct Circuit {
  std::vector<Variable> variables;

  // The edges of the network that carry a variable, each once, in order.
  std::vector<Edge> Edges() const;
  // The answer to a prompt with the facts `base`, where the edges in `mask` carry what they carry
  // for a prompt with the facts `source`. Other edges of the mask do not matter.
  int Answer(const EdgeSpace& space, const Value& base, const Value& source, const EdgeMask& mask) const;
  int Answer(const EdgeSpace& space, const Value& facts) const {
    return Answer(space, facts, facts, space.NoEdges());
  }
};

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_CIRCUIT_H_
