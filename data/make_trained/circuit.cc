#include "data/make_trained/circuit.h"

#include <algorithm>

namespace mechinterp::make_trained {

std::vector<Edge> Circuit::Edges() const {
  std::vector<Edge> edges;
  for (const Variable& variable : variables) {
    for (const Variable::Parent& parent : variable.parents) {
      const Edge edge{variables[static_cast<size_t>(parent.variable)].sender, parent.receiver};
      if (std::find(edges.begin(), edges.end(), edge) == edges.end()) edges.push_back(edge);
    }
  }
  return edges;
}

int Circuit::Answer(const EdgeSpace& space, const Value& base, const Value& source,
                    const EdgeMask& mask) const {
  std::vector<Value> in_base = {base}, in_source = {source};
  for (size_t i = 1; i < variables.size(); ++i) {
    std::vector<Value> seen, seen_in_source;
    for (const Variable::Parent& parent : variables[i].parents) {
      const size_t from = static_cast<size_t>(parent.variable);
      const bool is_patched = mask[space.At({variables[from].sender, parent.receiver})] != 0;
      seen.push_back(is_patched ? in_source[from] : in_base[from]);
      seen_in_source.push_back(in_source[from]);
    }
    in_base.push_back(variables[i].compute(seen));
    in_source.push_back(variables[i].compute(seen_in_source));
  }
  return in_base.back().front();
}

}  // namespace mechinterp::make_trained
