// abstract-make-trained: a model that was trained to a known circuit, to hold methods that look
// for circuits against.

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "data/make_trained/trained_model.h"
#include "services/common/command_line.h"
#include "services/common/data_path.h"
#include "services/common/status_macros.h"
#include "services/common/version.h"

namespace mechinterp::make_trained {
namespace {

struct Options {
  std::string output;
  int steps = 0;  // 0: as many as the task's own
  TrainedOptions trained;
};

void AddOptions(Command app, Options& options) {
  constexpr int kLargestSize = 1 << 12;
  std::vector<std::string> names;
  std::string footer = "Tasks:";
  for (const TaskKind& kind : TaskKinds()) {
    names.push_back(kind.name);
    absl::StrAppend(&footer, "\n  ", kind.name, ": ", kind.description);
  }
  TrainedOptions& trained = options.trained;
  app.AddOption("output", options.output, "Directory to make; it must not be there yet").Required();
  app.AddOption("--task", trained.task, "What the model is to do, and by which circuit").OneOf(names);
  app.AddOption("--seed", trained.seed, "Decides where the circuit lies, and all that is random");
  app.AddOption("--steps", options.steps, "Training steps; 0: as many as the default").InRange(0, 1 << 20);
  app.AddOption("--attempts", trained.attempts, "Trainings, until one has learned 99 % of everything")
      .InRange(1, 100);
  app.AddOption("--threads", trained.training.threads, "Threads; the result does not depend on them")
      .InRange(1, 64);
  app.AddOption("--layers", trained.layers, "Decoder blocks").InRange(2, 16);
  app.AddOption("--heads", trained.heads, "Attention heads").InRange(2, 64);
  app.AddOption("--kv-heads", trained.kv_heads, "Key/value heads; must divide the heads").InRange(2, 64);
  app.AddOption("--head-size", trained.head_size, "Width of a head; even").InRange(2, kLargestSize);
  app.AddOption("--d-model", trained.d_model, "Width of the residual stream").InRange(8, kLargestSize);
  app.AddOption("--d-ff", trained.d_ff, "Neurons of an MLP").InRange(1, kLargestSize);
  app.AddOption("--tokenizer", trained.files.tokenizer,
                "Directory whose tokenizer to take, with Llama 3's chat template");
  app.AddOption("--prompts", trained.files.prompts, "Prompt pairs of the task refusal");
  app.AddOption("--refusal-phrases", trained.files.phrases,
                "File with the openings that the metric is made of");
  app.SetFooter(footer);
}

void Print(const TrainedModel& model, double seconds) {
  const Accuracies& a = model.accuracies;
  std::printf(
      "%.0f s, attempt %d; right on %d held-out pairs: behaviour %.4f, interchange %.4f (edges %.4f, moved "
      "%.4f), "
      "strict %.4f (edges %.4f), circuit alone %.4f\n",
      seconds, model.attempts, a.pairs, a.behaviour, a.interchange, a.interchange_edges, a.moved, a.strict,
      a.strict_edges, a.circuit_alone);
  const EffectErrors& e = model.effect_errors;
  std::printf(
      "effects are off by at most: nodes %.3f (%s), other nodes %.3f (%s), edges %.3f (%s), other "
      "edges %.3f (%s)\n",
      e.largest_of_circuit_nodes, e.worst_circuit_node.c_str(), e.largest_of_other_nodes,
      e.worst_other_node.c_str(), e.largest_of_circuit_edges, e.worst_circuit_edge.c_str(),
      e.largest_of_other_edges, e.worst_other_edge.c_str());
  const EdgeSpace space = SpaceOf(model.config);
  for (const Edge& edge : model.task.circuit.Edges()) std::printf("  %s\n", space.EdgeName(edge).c_str());
}

// A step allocates and frees the same megabytes again and again; by glibc's defaults each goes back
// to the system at once, which took a fifth of the time.
void KeepFreedMemory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

absl::Status Run(Options options) {
  KeepFreedMemory();
  TrainedOptions& trained = options.trained;
  for (std::string* path : {&trained.files.tokenizer, &trained.files.prompts, &trained.files.phrases}) {
    *path = DataPath(*path);
  }
  if (options.steps > 0) trained.training.optimizer.total_steps = options.steps;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  ABSTRACT_ASSIGN_OR_RETURN(TrainedModel model,
                            MakeTrained(trained, [&](int64_t step, const CircuitLosses& losses) {
                              if (step % 50 != 49) return;
                              std::printf("step %4d  behaviour %.4f  interchange %.4f  strict %.4f  %.0f s\n",
                                          static_cast<int>(step + 1), losses.behaviour, losses.interchange,
                                          losses.strict, seconds());
                              std::fflush(stdout);
                            }));
  ABSTRACT_RETURN_IF_ERROR(WriteTrained(options.output, model));
  Print(model, seconds());
  if (HasLearned(model.accuracies)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(options.output, " is written, but has not learned its circuit"));
}

}  // namespace
}  // namespace mechinterp::make_trained

int main(int argc, char** argv) {
  mechinterp::CommandLine command_line(
      "Trains a model to a known circuit and writes it in Hugging Face layout with truth.json, which says "
      "which",
      "abstract-make-trained");
  mechinterp::make_trained::Options options;
  mechinterp::make_trained::AddOptions(command_line.root(), options);
  command_line.SetVersion(std::string("abstract-make-trained ") + mechinterp::kVersion);
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  const absl::Status status = mechinterp::make_trained::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "abstract-make-trained: %s\n", std::string(status.message()).c_str());
  return 1;
}
