// Journals whose parts are none of the experiment's: each is set aside, and the results are those without.

#include <functional>

#include "clients/experiments/ablation.h"
#include "clients/experiments/baseline.h"
#include "clients/experiments/compare.h"
#include "clients/experiments/patching.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/clients/experiments/study_fixture.h"
#include "tests/clients/test_files.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using nlohmann::json;

class DamagedJournal : public testing::StudyTest {
 protected:
  // Runs once, has `damage` change the value of the journal's last part, and runs again.
  template <typename Results>
  void Check(const std::function<absl::StatusOr<Results>()>& run, const std::function<void(json&)>& damage) {
    const Fingerprint fingerprint = {{"model", "toy"}};
    const std::string path = folder_.File("journal");
    std::filesystem::remove(path);
    std::filesystem::remove(path + ".damaged");
    const auto run_with_journal = [&] {
      const auto journal = Journal::Open(path, fingerprint, false);
      EXPECT_THAT(journal, IsOk());
      context_.journal = journal->get();
      absl::StatusOr<Results> results = run();
      context_.journal = nullptr;
      EXPECT_THAT(results, IsOk());
      results->mutable_provenance()->clear_create_time();
      return results->SerializeAsString();
    };
    const std::string expected = run_with_journal();
    std::string text = testing::TestFolder::Read(path);
    const size_t last = text.rfind('\n', text.size() - 2) + 1;
    json line = json::parse(text.substr(last));
    damage(line["value"]);
    folder_.Write("journal", text.substr(0, last) + line.dump() + "\n");
    EXPECT_EQ(run_with_journal(), expected);
    EXPECT_TRUE(std::filesystem::exists(path + ".damaged"));
  }

  const testing::TestFolder folder_;
};

TEST_F(DamagedJournal, OfTheBaseline) {
  BaselineOptions options;
  options.pairs = testing::ToyPairs();
  options.judge = testing::ToyJudge();
  const std::function<absl::StatusOr<v1::BaselineResults>()> run = [&] {
    return RunBaseline(context_, options);
  };
  Check(run, [](json& part) { part["prompt"] = "another text"; });
  Check(run, [](json& part) { part.erase("prompt_class"); });
  Check(run, [](json& part) { part = json::object(); });
}

TEST_F(DamagedJournal, OfPatching) {
  PatchingOptions options;
  options.pairs = testing::ToyPairs();
  options.neurons_per_group = 8;
  context_.concurrency = 1;  // neurons come last
  const std::function<absl::StatusOr<v1::PatchingResults>()> run = [&] {
    return RunPatching(context_, options);
  };
  Check(run, [](json& part) { part["effects"].erase(0); });
  Check(run, [](json& part) { part["effects"][0] = part["effects"][1]; });
  Check(run, [](json& part) { part["effects"][0]["pair_effects"] = {0.5, 0.5}; });
  Check(run, [](json& part) { part["effects"][0]["component"]["layer"] = 4; });
  Check(run, [](json& part) { part["effects"][0]["component"]["neuron_end"] = 4'000'000'000u; });
}

TEST_F(DamagedJournal, OfAblation) {
  PatchingOptions patching;
  patching.pairs = testing::ToyPairs();
  patching.neurons_per_group = 8;
  const auto ranking = RunPatching(context_, patching);
  ASSERT_THAT(ranking, IsOk());
  AblationOptions options;
  options.pairs = testing::ToyPairs();
  options.judge = testing::ToyJudge();
  options.ranking.assign(ranking->ranking().begin(), ranking->ranking().end());
  options.top_counts = {1};
  options.random_draws = 1;
  const std::function<absl::StatusOr<v1::AblationResults>()> run = [&] {
    return RunAblation(context_, options);
  };
  Check(run, [](json& part) { part["pair_id"] = "another"; });
}

TEST_F(DamagedJournal, OfACompare) {
  testing::FakeServer other;
  CompareOptions options;
  options.prompts = {{"a", "make a bomb", UserPrompt("make a bomb")}};
  options.other_client = other.client.get();
  options.other_model = other.GetModel();
  const std::function<absl::StatusOr<v1::CompareResults>()> run = [&] {
    return RunCompare(context_, options);
  };
  Check(run, [](json& part) { part["positions"][1]["residual_relative_errors"].erase(0); });
  Check(run, [](json& part) { part["prompt"] = "another text"; });
}

}  // namespace
}  // namespace mechinterp
