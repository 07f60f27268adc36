// A results file of a study: after the digit of its experiment, 1 to 5.

#include <filesystem>
#include <string>

#include "clients/lib/results_io.h"
#include "services/analysis/circuit.h"
#include "services/analysis/study.h"
#include "services/common/experiments.h"
#include "services/common/ranking.h"
#include "services/common/status.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp {
namespace {

using fuzz::Require;

// What the analysis server makes of results that it has accepted.
void CheckViews(v1::Study study) {
  if (study.has_patching()) {
    AddMissingRanking(*study.mutable_patching());
    Violations violations;
    CheckStudy(study, "study", violations);
    Require(violations.empty(), "a ranking that was added is right");
  }
  constexpr int kNodes = 3, kEdges = 2;
  const v1::GetCircuitResponse circuit = CircuitOf(study.circuit(), kNodes, kEdges);
  Require(circuit.nodes_size() <= kNodes && circuit.edges_size() <= kEdges,
          "a circuit is as small as asked for");
  for (const v1::MeasuredNode& node : circuit.nodes()) {
    Require(ParseCircuitName(node.name()).has_value(), "nodes that are drawn have a place");
  }
}

void CheckFile(v1::ExperimentKind kind, std::string_view content) {
  const std::string path = fuzz::ScratchFile(InfoOf(kind).file_name, content);
  v1::Study study;
  google::protobuf::Message& results = MutableResultsOf(study, kind);
  const absl::Status read = ReadResults(path, &results);
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const auto checked = ReadStudy(folder);
  std::filesystem::remove(path);
  if (!read.ok()) {
    Require(!checked.ok(), "a study is read as its files are");
    return fuzz::RequireRefusal(read, path);
  }
  const std::string copy = fuzz::ScratchPath("written_results.json");
  if (const absl::Status written = WriteResults(copy, results); written.ok()) {
    v1::Study again;
    fuzz::RequireOk(ReadResults(copy, &MutableResultsOf(again, kind)), "what was written can be read");
    Require(again.SerializeAsString() == study.SerializeAsString(), "results come back");
  } else {
    Require(absl::IsInvalidArgument(written), "results that JSON cannot have");
  }
  if (!checked.ok()) return fuzz::RequireRefusal(checked.status(), InfoOf(kind).file_name);
  CheckViews(*checked);
}

}  // namespace
}  // namespace mechinterp

ABSTRACT_FUZZ_TARGET(results) {
  using namespace mechinterp;
  if (input.empty() || !IsExperiment(input[0] - '0')) return;
  CheckFile(static_cast<v1::ExperimentKind>(input[0] - '0'), input.substr(1));
}
