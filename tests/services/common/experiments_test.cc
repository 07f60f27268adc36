#include "services/common/experiments.h"

#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;

TEST(Experiments, NamesTheFilesInTheOrderOfAStudy) {
  std::vector<std::string> files;
  for (const ExperimentInfo& experiment : Experiments()) files.push_back(experiment.file_name);
  EXPECT_THAT(files,
              ElementsAre("01_baseline_results.json", "02_patching_results.json", "03_ablation_results.json",
                          "04_compare_results.json", "05_circuit_results.json", "06_direction_results.json"));
}

// What Study's comment promises, and what the code takes for granted.
TEST(Experiments, AreTheFieldsOfAStudyAndTheKindsAtOnce) {
  EXPECT_EQ(static_cast<int>(Experiments().size()), v1::ExperimentKind_descriptor()->value_count() - 1);
  for (const ExperimentInfo& experiment : Experiments()) {
    EXPECT_EQ(v1::ExperimentKind_Name(experiment.kind),
              absl::StrCat("EXPERIMENT_KIND_", absl::AsciiStrToUpper(experiment.name)));
    EXPECT_EQ(InfoOf(experiment.kind).name, experiment.name);
    v1::Study study;
    EXPECT_EQ(ResultsOf(study, experiment.kind), nullptr);
    const google::protobuf::Message& results = MutableResultsOf(study, experiment.kind);
    EXPECT_EQ(ResultsOf(study, experiment.kind), &results);
    EXPECT_EQ(ProvenanceOf(results).model().name(), "");
  }
  EXPECT_FALSE(IsExperiment(0));
  EXPECT_FALSE(IsExperiment(999));
}

}  // namespace
}  // namespace mechinterp
