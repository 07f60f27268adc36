#ifndef SERVICES_ANALYSIS_CIRCUIT_H_
#define SERVICES_ANALYSIS_CIRCUIT_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "mechinterp/v1/analysis_service.pb.h"

namespace mechinterp {

// The measured circuit, as it is read and drawn. Pure functions.

enum class PartKind { kEmbed, kQuery, kKey, kValue, kHead, kMlpInput, kNeuron, kMlp, kFinal };

// Where a node, or an edge's end, is in the forward pass.
struct CircuitPlace {
  PartKind kind = PartKind::kEmbed;
  uint32_t layer = 0;
  uint32_t index = 0;  // of the head, the key and value head, or the neuron

  bool operator==(const CircuitPlace&) const = default;
};

// Of "embed", "L2.q3", "L2.k0", "L2.v0", "L2.H3", "L2.mlp_in", "L2.N317", "L2.mlp" and "final". Unset for
// everything else, numbers that are written otherwise ("L02.H3") among it.
std::optional<CircuitPlace> ParseCircuitName(std::string_view name);

bool IsSender(const CircuitPlace& place);
bool IsReceiver(const CircuitPlace& place);
// Whether the pass has the sender's output when it comes to the receiver.
bool Reaches(const CircuitPlace& sender, const CircuitPlace& receiver);

// The largest of its effects; of a decoy, which has none, what it writes into the logits.
double SizeOf(const v1::MeasuredNode& node);
double SizeOf(const v1::MeasuredEdge& edge);

// What GetCircuit answers: the largest nodes, whatever their role, and the largest edges between them,
// whole MLPs, the embedding and the logits, of each head at least one where there is room. Nodes and edges
// whose names cannot be parsed are left out.
v1::GetCircuitResponse CircuitOf(const v1::CircuitResults& results, int node_count, int edge_count);

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_CIRCUIT_H_
