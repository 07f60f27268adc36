// abstract-kernels-benchmark: kernels::Multiply and the packers, beside libtorch's
// products and the machine's peaks; MultiplyTransposed beside Multiply. Takes Google Benchmark's flags too.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "services/common/command_line.h"
#include "services/engine/kernels/multiply.h"
#include "services/engine/kernels/multiply_transposed.h"
#include "services/engine/kernels/parallel.h"
#include "tests/benchmarks/cpu_options.h"
#include "tests/benchmarks/libtorch_products.h"
#include "tests/benchmarks/machine_peaks.h"
#include "tests/benchmarks/matrices.h"
#include "tests/benchmarks/measurement.h"

namespace mechinterp::benchmarks {
namespace {

using engine::NumberFormat;
using engine::kernels::PackedMatrix;

PeakMeter& Meter() {
  static PeakMeter meter(engine::kernels::ThreadCount());
  return meter;
}

// The matrices of one benchmark, kept for the next, which has them in common but
// for the number of rows.
struct Operands {
  MatrixSpec spec;
  std::vector<PackedMatrix> copies;
  size_t next = 0;
  const PackedMatrix& Next() { return copies[next++ % copies.size()]; }
  struct Peer {
    std::string name;
    std::unique_ptr<LibtorchProduct> product;
  };
  std::vector<Peer> peers;
};

Operands& OperandsOf(const MatrixSpec& spec) {
  static std::unique_ptr<Operands> current;
  if (current != nullptr && current->spec == spec) return *current;
  current.reset();  // before the next ones are made
  current = std::make_unique<Operands>();
  current->spec = spec;
  current->copies.push_back(RandomMatrix(spec));
  const int copies = CopiesToRotate(current->copies.front().bytes());
  while (static_cast<int>(current->copies.size()) < copies) current->copies.push_back(RandomMatrix(spec));
  return *current;
}

void AddPeers(Operands& operands) {
  const MatrixSpec& spec = operands.spec;
  operands.peers.push_back({"torch_fp32", UnquantizedProduct(spec.in, spec.out, at::kFloat)});
  operands.peers.push_back({"torch_bf16", UnquantizedProduct(spec.in, spec.out, at::kBFloat16)});
  if (auto int4 = Int4Product(spec.in, spec.out); int4 && spec.format == NumberFormat::kNf4) {
    operands.peers.push_back({"torch_int4", std::move(int4)});
  }
}

// Ours and libtorch's pools of threads both go on spinning for some milliseconds
// after their work; whoever is measured next has the cores to itself.
void LetThreadsSleep() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

// Done before for some milliseconds: a virtual machine's core was seen to need one to wake.
template <typename Work>
double SecondsOf(const Work& work) {
  constexpr double kSecondsToWake = 0.005;
  LetThreadsSleep();
  const Clock::time_point begin = Clock::now();
  do {
    work();
  } while (SecondsSince(begin) < kSecondsToWake);
  const Clock::time_point start = Clock::now();
  work();
  return SecondsSince(start);
}

// Ours and each peer in turn, every iteration; a slow peer drops out after a second.
// Counters are of medians.
void Multiply(benchmark::State& state, const MatrixSpec& spec, int64_t rows) {
  Operands& operands = OperandsOf(spec);
  if (operands.peers.empty()) AddPeers(operands);
  const std::vector<float> x = RandomValues(rows * spec.in, 2);
  std::vector<float> y(static_cast<size_t>(rows * spec.out));
  const at::Tensor peer_x =
      at::from_blob(const_cast<float*>(x.data()), {rows, spec.in}, at::TensorOptions().dtype(at::kFloat));
  std::vector<at::Tensor> peer_xs;
  for (const Operands::Peer& peer : operands.peers) {
    peer_xs.push_back(peer_x.to(peer.product->type()));
    peer.product->Multiply(peer_xs.back());  // libraries prepare something the first time
  }
  LetThreadsSleep();
  const double bandwidth = Meter().ReadBandwidth();
  const double bfloat16_peak = spec.compute == NumberFormat::kBFloat16 ? Meter().BFloat16Peak() : 0;
  const double peak = bfloat16_peak > 0 ? bfloat16_peak : Meter().Float32Peak();

  std::vector<double> ours;
  std::vector<std::vector<double>> theirs(operands.peers.size());
  for (auto _ : state) {
    ours.push_back(SecondsOf([&] { engine::kernels::Multiply(x.data(), rows, operands.Next(), y.data()); }));
    benchmark::DoNotOptimize(y.data());
    state.SetIterationTime(ours.back());
    for (size_t i = 0; i < theirs.size(); ++i) {
      // Some of libtorch's products take a hundred times as long as others.
      if (theirs[i].size() >= 5 && Median(theirs[i]) * static_cast<double>(theirs[i].size()) > 1) continue;
      theirs[i].push_back(SecondsOf([&] { operands.peers[i].product->Multiply(peer_xs[i]); }));
    }
  }
  const double operations = 2.0 * static_cast<double>(rows * spec.in * spec.out);
  const double seconds = Median(ours);
  const double bytes_per_second = static_cast<double>(operands.copies.front().bytes()) / seconds;
  state.counters["GFLOP/s"] = operations / seconds / 1e9;
  state.counters["GB/s"] = bytes_per_second / 1e9;
  state.counters["of_bandwidth"] = bytes_per_second / bandwidth;
  state.counters["of_peak"] = operations / seconds / peak;
  for (size_t i = 0; i < theirs.size(); ++i) {
    const double peer_seconds = Median(theirs[i]);
    state.counters[operands.peers[i].name] = operations / peer_seconds / 1e9;
    state.counters["vs_" + operands.peers[i].name] = peer_seconds / seconds;
  }
}

// The product by the transposed matrix and the product itself in turn, each with as many rows.
void MultiplyTransposed(benchmark::State& state, const MatrixSpec& spec, int64_t rows) {
  Operands& operands = OperandsOf(spec);
  const std::vector<float> x = RandomValues(rows * spec.in, 2), dy = RandomValues(rows * spec.out, 3);
  std::vector<float> y(dy.size()), dx(x.size());
  std::vector<double> transposed, forward, ratios;
  for (auto _ : state) {
    transposed.push_back(
        SecondsOf([&] { engine::kernels::MultiplyTransposed(dy.data(), rows, operands.Next(), dx.data()); }));
    state.SetIterationTime(transposed.back());
    forward.push_back(
        SecondsOf([&] { engine::kernels::Multiply(x.data(), rows, operands.Next(), y.data()); }));
    ratios.push_back(transposed.back() / forward.back());
  }
  const double operations = 2.0 * static_cast<double>(rows * spec.in * spec.out);
  const double seconds = Median(transposed);
  state.counters["GFLOP/s"] = operations / seconds / 1e9;
  state.counters["GB/s"] = static_cast<double>(operands.copies.front().bytes()) / seconds / 1e9;
  state.counters["forward"] = operations / Median(forward) / 1e9;
  state.counters["time_of_forward"] = Median(ratios);
}

// Quantizing and packing, one thread: bytes of fp32 taken in a second.
void Pack(benchmark::State& state, const MatrixSpec& spec) {
  PackedMatrix matrix = EmptyMatrix(spec);
  const std::vector<float> rows = RandomValues(engine::kernels::kPanelOutputs * spec.in, 1);
  int64_t panel = 0;
  for (auto _ : state) {
    engine::kernels::PackPanel(matrix, panel, rows.data());
    panel = (panel + 1) % matrix.panels();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(rows.size() * sizeof(float)));
}

// Enough for a steady median, some tenths of a second.
int64_t IterationsFor(const MatrixSpec& spec, int64_t rows) {
  const double operations = 2.0 * static_cast<double>(rows * spec.in * spec.out);
  return std::clamp<int64_t>(static_cast<int64_t>(3e10 / operations), 7, 60);
}

void RegisterAll() {
  constexpr std::pair<NumberFormat, NumberFormat> kKinds[] = {
      {NumberFormat::kNf4, NumberFormat::kBFloat16},      {NumberFormat::kNf4, NumberFormat::kFloat32},
      {NumberFormat::kInt8, NumberFormat::kBFloat16},     {NumberFormat::kInt8, NumberFormat::kFloat32},
      {NumberFormat::kBFloat16, NumberFormat::kBFloat16}, {NumberFormat::kBFloat16, NumberFormat::kFloat32},
      {NumberFormat::kFloat32, NumberFormat::kFloat32},
  };
  constexpr std::pair<int64_t, int64_t> kSizes[] = {{4096, 14336}, {14336, 4096}, {4096, 4096}, {2048, 8192}};
  for (const auto& [format, compute] : kKinds) {
    for (const auto& [in, out] : kSizes) {
      const MatrixSpec spec{format, compute, in, out};
      const std::string kind =
          absl::StrCat(std::string(engine::InfoOf(format).short_name), "/",
                       std::string(engine::InfoOf(compute).short_name), "/K:", in, "/N:", out);
      for (int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256}) {
        const std::string name = absl::StrCat("Multiply/", kind, "/M:", rows);
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) { Multiply(state, spec, rows); })
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond)
            ->Iterations(IterationsFor(spec, rows));
      }
      for (int64_t rows : {1, 25, 128}) {
        benchmark::RegisterBenchmark(absl::StrCat("MultiplyTransposed/", kind, "/M:", rows).c_str(),
                                     [=](benchmark::State& state) { MultiplyTransposed(state, spec, rows); })
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond)
            ->Iterations(IterationsFor(spec, rows));
      }
      if (in == 4096 && out == 4096) {
        benchmark::RegisterBenchmark(absl::StrCat("Pack/", kind).c_str(), [=](benchmark::State& state) {
          Pack(state, spec);
        })->Unit(benchmark::kMillisecond);
      }
    }
  }
}

}  // namespace
}  // namespace mechinterp::benchmarks

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  mechinterp::CommandLine command_line(
      "Measures the kernels; Google Benchmark's flags (--benchmark_filter=REGEX ...) work too.",
      "abstract-kernels-benchmark");
  mechinterp::benchmarks::CpuOptions options;
  mechinterp::benchmarks::AddCpuOptions(command_line.root(), options);
  if (const auto exit_code = command_line.Parse(argc, argv)) return *exit_code;
  mechinterp::benchmarks::UseCpu(options);
  at::set_num_threads(options.threads);  // the peer's
  mechinterp::benchmarks::RegisterAll();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
