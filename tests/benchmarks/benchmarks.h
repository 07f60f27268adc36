#ifndef TESTS_BENCHMARKS_BENCHMARKS_H_
#define TESTS_BENCHMARKS_BENCHMARKS_H_

#include <iosfwd>

#include "absl/status/status.h"
#include "tests/benchmarks/options.h"

namespace mechinterp::benchmarks {

// The subcommands of abstract-benchmark; README.md says what each measures. They
// print to `out` and fail on the first error of the engine or of a peer.
absl::Status RunDecode(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunPrefill(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunSweep(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunHeads(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunNeurons(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunPair(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunConcurrent(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunRpcOverhead(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunNetwork(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunAttributions(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunTruth(const BenchmarkOptions& options, std::ostream& out);
absl::Status RunLoad(const BenchmarkOptions& options, std::ostream& out);

}  // namespace mechinterp::benchmarks

#endif  // TESTS_BENCHMARKS_BENCHMARKS_H_
