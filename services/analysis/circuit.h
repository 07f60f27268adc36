#ifndef SERVICES_ANALYSIS_CIRCUIT_H_
#define SERVICES_ANALYSIS_CIRCUIT_H_

#include "absl/types/span.h"
#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// A drawing of the ranking's leaders: the best `component_count` components with
// a positive score between one input and one output node, in the order of the
// forward pass (in one layer attention comes before the MLP).
//
// Every component could feed every later one, which no reader could follow, so
// each keeps the two strongest edges from earlier components. Input and output
// connect where a component would otherwise hang loose, and to the three best
// components. Edges say what is possible and who scores; none was measured.
// Pure; empty when no component has a positive score.
v1::Circuit BuildCircuit(absl::Span<const v1::RankedComponent> ranking, int component_count);
// The circuit of the results' ranking.
v1::Circuit CircuitOf(const v1::PatchingResults& patching, int component_count);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_CIRCUIT_H_
