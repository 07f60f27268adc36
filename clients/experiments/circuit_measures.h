#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_MEASURES_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_MEASURES_H_

#include <vector>

#include "absl/types/span.h"
#include "clients/experiments/circuit_graph.h"
#include "clients/experiments/circuit_statistics.h"
#include "mechinterp/v1/results.pb.h"

namespace mechinterp {

// What the circuit experiment reads off its parts. Pure functions.

// Element by element; of rows of one length.
std::vector<double> MeanOf(absl::Span<const std::vector<float>> rows);

// The index-th value of each task's part.
std::vector<double> Column(absl::Span<const v1::CircuitPart> parts, int index);

// Whether it is at least so large, and its interval leaves out 0.
bool IsEffect(const v1::Estimate& estimate, double least);

// Of the largest of its effects.
double Size(const v1::MeasuredNode& node);

// A node of the results, with nothing measured; and back.
v1::MeasuredNode Describe(const CircuitGraph::Node& node);
CircuitGraph::Node NodeOf(const v1::MeasuredNode& node);

// Holm's correction of the p-values of all that were tested together.
template <typename Measured>
void CorrectPValues(std::vector<Measured>& all) {
  std::vector<double> values;
  for (const Measured& measured : all) values.push_back(measured.p_value());
  values = HolmAdjusted(values);
  for (size_t i = 0; i < all.size(); ++i) all[i].set_p_value(values[i]);
}

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_MEASURES_H_
