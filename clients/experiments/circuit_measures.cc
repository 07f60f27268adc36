#include "clients/experiments/circuit_measures.h"

#include <algorithm>
#include <cmath>

namespace mechinterp {

std::vector<double> MeanOf(absl::Span<const std::vector<float>> rows) {
  std::vector<double> mean(rows.empty() ? 0 : rows[0].size());
  for (const std::vector<float>& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) mean[i] += row[i] / static_cast<double>(rows.size());
  }
  return mean;
}

std::vector<double> Column(absl::Span<const v1::CircuitPart> parts, int index) {
  std::vector<double> values;
  for (const v1::CircuitPart& part : parts) values.push_back(part.values(index));
  return values;
}

bool IsEffect(const v1::Estimate& estimate, double least) {
  return std::abs(estimate.mean()) >= least && (estimate.lower() > 0 || estimate.upper() < 0);
}

double Size(const v1::MeasuredNode& node) {
  return std::max({std::abs(node.noising().mean()), std::abs(node.denoising().mean()),
                   std::abs(node.conditional().mean())});
}

v1::MeasuredNode Describe(const CircuitGraph::Node& node) {
  v1::MeasuredNode measured;
  measured.set_name(node.name());
  measured.set_layer(static_cast<uint32_t>(node.layer));
  if (node.is_head) {
    measured.set_head(static_cast<uint32_t>(node.index));
  } else {
    measured.set_neuron(static_cast<uint32_t>(node.index));
  }
  return measured;
}

CircuitGraph::Node NodeOf(const v1::MeasuredNode& node) {
  return {static_cast<int>(node.layer()), node.has_head(),
          static_cast<int>(node.has_head() ? node.head() : node.neuron())};
}

}  // namespace mechinterp
