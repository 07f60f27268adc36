// abstract-benchmark: whole runs, each beside its peer. See README.md.

#include <functional>
#include <iostream>
#include <map>

#include "services/common/command_line.h"
#include "services/common/status.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/rows.h"
#include "spdlog/spdlog.h"
#include "tests/benchmarks/benchmarks.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

using Benchmark = absl::Status (*)(const BenchmarkOptions&, std::ostream&);

void AddOptions(Command app, BenchmarkOptions& options) {
  app.AddOption("--model", options.model, "Directory of a checkpoint in Hugging Face layout");
  app.AddOption(
         "--quantization",
         [&options](const std::string& name) {
           options.load.quantization = engine::QuantizationOfName(name);
         },
         "none or nf4; default: as the engine chooses")
      .OneOf(engine::LinearQuantizationNames());
  app.AddOption(
         "--head-quantization",
         [&options](const std::string& name) { options.load.head = engine::QuantizationOfName(name); },
         "none, int8 or nf4; default: as the engine chooses")
      .OneOf(engine::HeadQuantizationNames());
  app.AddOption(
         "--compute-dtype",
         [&options](const std::string& name) {
           options.load.compute_type = engine::NumberFormatOfShortName(name);
         },
         "f32, bf16 or f16; default: as the engine chooses")
      .OneOf(engine::ComputeTypeNames());
  AddCpuOptions(app, options);
  app.AddOption("--repetitions", options.repetitions, "Rounds of ours and the peer's in turn")
      .InRange(1, 1000);
  app.AddOption("--prompt-tokens", options.prompt_tokens, "Length of prompts; 0: the benchmark's own choice")
      .InRange(0, 1 << 20);
  app.AddOption("--new-tokens", options.new_tokens, "Tokens decoded a round").InRange(2, 1 << 20);
  app.AddOption("--streams", options.streams, "concurrent: clients at once").InRange(1, 1024);
  app.AddOption("--naive-sites", options.naive_sites, "sweep, heads, pair: sites run the naive way a round")
      .NonNegative();
  app.AddFlag("--joint-positions", options.joint_positions,
              "sweep, pair: patch the last five positions together, not one by one");
  app.AddFlag("--autograd", options.autograd,
              "attribution: also by libtorch's autograd, which takes the weights' memory in fp32");
  app.AddOption("--kinds", options.kinds, "truth: kinds of planted models, several with commas; default: all")
      .SplitAt(',');
  app.AddOption("--seeds", options.seeds, "truth: planted models of each kind").InRange(0, 100);
  app.AddOption("--trained", options.trained,
                "truth: folders that abstract-make-trained wrote, several with commas")
      .SplitAt(',');
  app.AddOption("--gguf", options.gguf,
                "decode, prefill: the same shape for llama.cpp; empty: no comparison");
  app.AddOption("--llama-bench", options.llama_bench, "llama.cpp's benchmark program");
}

int Run(const std::string& name, Benchmark benchmark, BenchmarkOptions options) {
  UseCpu(options);
  std::cout << name << ": " << options.model << ", " << options.threads << " threads, "
            << engine::kernels::InstructionSet() << ", medians of " << options.repetitions
            << " [smallest, largest]\n";
  if (const absl::Status status = benchmark(options, std::cout); !status.ok()) {
    std::cerr << DescribeStatus(status) << "\n";
    return 1;
  }
  const int64_t peak = PeakResidentMemory(), peer_peak = PeakResidentMemoryOfChildren();
  std::cout << "  peak resident memory " << FormatBytes(peak);
  if (peer_peak > 0) {
    std::cout << "; of the peer " << (peer_peak > peak ? "" : "no more than ") << FormatBytes(peer_peak);
  }
  std::cout << "\n";
  return 0;
}

}  // namespace
}  // namespace mechinterp::benchmarks

int main(int argc, char** argv) {
  using namespace mechinterp::benchmarks;
  spdlog::set_level(spdlog::level::warn);  // of what is measured, too
  mechinterp::CommandLine command_line("Measures whole runs beside their peers.", "abstract-benchmark");
  BenchmarkOptions options;
  AddOptions(command_line.root(), options);
  command_line.RequireSubcommand();
  const std::pair<const char*, std::pair<Benchmark, const char*>> benchmarks[] = {
      {"decode", {RunDecode, "One stream; beside llama-bench and the memory bandwidth"}},
      {"prefill", {RunPrefill, "One prompt; beside llama-bench and the arithmetic peak"}},
      {"sweep", {RunSweep, "Patches at the last five positions; beside one forward pass for each"}},
      {"heads", {RunHeads, "Patches of every head; beside one forward pass for each"}},
      {"neurons",
       {RunNeurons, "Patches of every sixteenth of the MLP's neurons; beside one forward pass for each"}},
      {"pair", {RunPair, "Both sweeps of one pair of prompts"}},
      {"concurrent", {RunConcurrent, "Many streams; beside one local batch and one stream"}},
      {"rpc-overhead", {RunRpcOverhead, "gRPC and recording; beside the engine alone"}},
      {"network", {RunNetwork, "TLS and tokens; beside plain text. Streams of activations; beside memory"}},
      {"attribution",
       {RunAttributions,
        "Attribution, exact paths, a circuit; beside a forward pass and libtorch's autograd"}},
      {"truth", {RunTruth, "Every way of finding circuits, on models whose circuit is known"}},
      {"load", {RunLoad, "Loading; beside reading the files"}},
  };
  std::function<int()> run;
  for (const auto& [name, benchmark] : benchmarks) {
    command_line.root()
        .AddSubcommand(name, benchmark.second)
        .OnChosen([&run, &options, name = name, function = benchmark.first] {
          run = [&options, name, function] { return Run(name, function, options); };
        });
  }
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  return run();
}
