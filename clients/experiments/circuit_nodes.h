#ifndef CLIENTS_EXPERIMENTS_CIRCUIT_NODES_H_
#define CLIENTS_EXPERIMENTS_CIRCUIT_NODES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/experiments/circuit.h"
#include "clients/experiments/circuit_probe.h"

namespace mechinterp {

// Which nodes and edges are in the circuit.

// The tasks of the pairs that circuits are chosen on: of each direction all of them, in the order of
// the pairs.
struct CircuitTasks {
  std::vector<CircuitTask> noising;
  std::vector<CircuitTask> denoising;

  std::vector<CircuitTask> Both() const;
};

// Attribution's scores of everything.
struct CircuitScores {
  // Of each of CircuitTasks::Both(), by node and by edge.
  std::vector<std::vector<float>> nodes;
  std::vector<std::vector<float>> edges;
  // Means over the noising, or the denoising tasks, or both.
  std::vector<double> noising_nodes, denoising_nodes, mean_nodes, mean_edges;
  // Heads and whole MLPs (CircuitGraph::HeadsAndMlps), the best first: by exact effects.
  std::vector<int> heads_and_mlps;
};

// What is asked of each of several tasks.
struct CircuitStage {
  // As people see it.
  std::string name;
  // Of each answer.
  CircuitPartSize size;
  // What it is about, where other stages bear its name.
  std::string subject = {};
  // What else must hold of an answer; null: nothing.
  bool (*holds)(const v1::CircuitPart& part) = nullptr;

  // Of a task's part in the journal.
  std::string KeyOf(const CircuitTask& task) const;
};

// A part of the journal for each task, made where it is not there yet.
using CircuitCompute = std::function<absl::StatusOr<v1::CircuitPart>(const CircuitTask& task)>;
absl::StatusOr<std::vector<v1::CircuitPart>> RunTasks(const ExperimentContext& context,
                                                      const CircuitStage& stage,
                                                      const std::vector<CircuitTask>& tasks,
                                                      const CircuitCompute& compute,
                                                      v1::CircuitResults& results);
// The same for several stages of one name, one after the other; `compute` is told which of them.
absl::StatusOr<std::vector<v1::CircuitPart>> RunStages(
    const ExperimentContext& context, const std::vector<CircuitStage>& stages,
    const std::vector<CircuitTask>& tasks,
    const std::function<absl::StatusOr<v1::CircuitPart>(const CircuitTask& task, size_t stage)>& compute,
    v1::CircuitResults& results);

absl::StatusOr<CircuitScores> ScoreEverything(const ExperimentContext& context, const CircuitProbe& probe,
                                              const CircuitTasks& tasks, v1::CircuitResults& results);

// Patches all heads, all MLPs, all groups of neurons and attribution's leading neurons exactly: the
// members, how attribution agrees, and the order of heads_and_mlps.
absl::Status FindMembers(const ExperimentContext& context, const CircuitProbe& probe,
                         const CircuitOptions& options, const CircuitTasks& tasks, CircuitScores& scores,
                         v1::CircuitResults& results);

// Ablates leaders and ranks again: the backups.
absl::Status FindBackups(const ExperimentContext& context, const CircuitProbe& probe,
                         const CircuitOptions& options, const CircuitTasks& tasks,
                         const CircuitScores& scores, v1::CircuitResults& results);

// Nodes that write into the logits, on harmful prompts or on harmless ones, and that patching does not
// move the metric by: the decoys. At most 10.
absl::Status FindDecoys(const ExperimentContext& context, const CircuitProbe& probe,
                        const CircuitOptions& options, const CircuitTasks& tasks,
                        v1::CircuitResults& results);

// Patches the edges between the nodes that were found, and attribution's leading ones: those that carry
// something.
absl::Status FindEdges(const ExperimentContext& context, const CircuitProbe& probe,
                       const CircuitOptions& options, const CircuitTasks& tasks, const CircuitScores& scores,
                       v1::CircuitResults& results);

// Of each backup, with what it backs up cut off: the edges to and from the other nodes that carry
// something then. A leading neuron is cut off with its whole MLP.
absl::Status FindBackupEdges(const ExperimentContext& context, const CircuitProbe& probe,
                             const CircuitOptions& options, const CircuitTasks& tasks,
                             v1::CircuitResults& results);

// All six, one after the other: nodes and edges are in the results then.
absl::StatusOr<CircuitScores> FindCircuit(const ExperimentContext& context, const CircuitProbe& probe,
                                          const CircuitOptions& options, const CircuitTasks& tasks,
                                          v1::CircuitResults& results);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_CIRCUIT_NODES_H_
