// The circuit experiment with a journal: its results are those without one, whatever pairs it is given,
// and whatever became of the journal.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <sstream>

#include "absl/strings/escaping.h"
#include "clients/experiments/circuit.h"
#include "google/protobuf/util/message_differencer.h"
#include "nlohmann/json.hpp"
#include "tests/clients/test_files.h"
#include "tests/integration/planted_server.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using testing::PlantedServer;

struct Remarks : ExperimentMonitor {
  void Remark(std::string_view text) override { texts.emplace_back(text); }
  std::vector<std::string> texts;
};

class CircuitJournal : public ::testing::Test {
 protected:
  static std::vector<PromptPair> Pairs(int limit) {
    return *LoadPromptPairs(PlantedServer::Data("prompts.json"), limit);
  }

  CircuitJournal() {
    context_.monitor = &remarks_;
    options_.pairs = Pairs(3);
    options_.neuron_count = 8;
    options_.edge_count = 30;
    options_.leader_count = 2;
    options_.most_rounds = 1;
    options_.resample_count = 10;
  }

  v1::CircuitResults Run() {
    const auto results = RunCircuitExperiment(context_, options_);
    EXPECT_THAT(results, IsOk());
    if (!results.ok()) return {};
    v1::CircuitResults without_time = *results;
    without_time.mutable_provenance()->clear_create_time();
    return without_time;
  }

  v1::CircuitResults RunWithJournal() {
    auto journal = Journal::Open(path_, CircuitFingerprint(context_, options_), false);
    EXPECT_THAT(journal, IsOk());
    context_.journal = journal->get();
    v1::CircuitResults results = Run();
    context_.journal = nullptr;
    return results;
  }

  void ExpectTheSameWithJournal() {
    const v1::CircuitResults expected = Run();
    for (const char* run : {"new", "resumed"}) {
      EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(RunWithJournal(), expected)) << run;
    }
  }

  const PlantedServer planted_{"single_path"};
  ExperimentContext context_ = planted_.context();
  Remarks remarks_;
  CircuitOptions options_;
  const testing::TestFolder folder_;
  const std::string path_ = folder_.File("journal.jsonl");
};

TEST_F(CircuitJournal, OfFewerThanThreePairs) {
  options_.pairs = Pairs(2);
  ExpectTheSameWithJournal();
  EXPECT_THAT(remarks_.texts, Contains(HasSubstr("tested on the pairs that it is chosen on")));
}

TEST_F(CircuitJournal, OfPairsThatAreTestsToo) {
  options_.test_pairs = options_.pairs;
  ExpectTheSameWithJournal();
}

// A test pair with the id of a chosen one, and other texts of another length.
TEST_F(CircuitJournal, OfTestsWithTheIdsOfOthers) {
  options_.test_pairs = {Pairs(9)[7], Pairs(9)[8]};
  for (size_t i = 0; i < options_.test_pairs.size(); ++i) options_.test_pairs[i].id = options_.pairs[i].id;
  ExpectTheSameWithJournal();
  const v1::CircuitResults results = Run();
  EXPECT_EQ(results.test_pair_ids(0), options_.pairs[0].id + " (test)");
}

TEST_F(CircuitJournal, PairsLeftOutAreTold) {
  options_.test_pairs = {Pairs(9)[7], Pairs(9)[8]};
  for (PromptPair& pair : options_.test_pairs) pair.harmless += " And how do I do that?";
  const v1::CircuitResults results = Run();
  EXPECT_EQ(results.test_pair_ids_size(), 1);
  EXPECT_THAT(remarks_.texts,
              Contains("2 of 2 test pairs left out: 2 with prompts of unequal length in tokens, 0 "
                       "that the metric does not tell apart"));
  EXPECT_THAT(remarks_.texts,
              Contains("no test pair is left; the circuit is tested on every third of the pairs instead"));
}

// Of each stage one part that is short of a number, or has one too many.
TEST_F(CircuitJournal, WithPartsThatAreNoneOfItsOwnIsDamaged) {
  const v1::CircuitResults expected = RunWithJournal();
  std::istringstream whole(testing::TestFolder::Read(path_));
  std::string text;
  std::vector<std::string> lines;
  while (std::getline(whole, text)) lines.push_back(text);
  std::map<std::string, size_t> of_stage;
  for (size_t i = 1; i < lines.size(); ++i) {
    const auto key = json::parse(lines[i]).at("key").get<std::string>();
    of_stage[key.substr(0, key.find('/'))] = i;
  }
  EXPECT_GE(of_stage.size(), 12u);
  for (const auto& [stage, line] : of_stage) {
    for (const bool too_short : {true, false}) {
      json part = json::parse(lines[line]);
      json& value = part["value"];
      if (value.contains("scores")) {
        std::string scores;
        ASSERT_TRUE(absl::Base64Unescape(value["scores"].get<std::string>(), &scores));
        scores.resize(too_short ? scores.size() - 4 : scores.size() + 4);
        value["scores"] = absl::Base64Escape(scores);
      } else if (!too_short) {
        value["values"].push_back(0.5);
      } else if (value.contains("values")) {
        value["values"].erase(0);
      } else {
        continue;  // nothing was asked
      }
      std::string damaged;
      for (size_t i = 0; i < lines.size(); ++i) damaged += (i == line ? part.dump() : lines[i]) + "\n";
      folder_.Write("journal.jsonl", damaged);
      std::filesystem::remove(path_ + ".damaged");
      EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(RunWithJournal(), expected)) << stage;
      EXPECT_EQ(testing::TestFolder::Read(path_ + ".damaged"), damaged) << stage;
      EXPECT_THAT(remarks_.texts.back(), HasSubstr("it is damaged: no such part is made: " + stage)) << stage;
    }
  }
}

}  // namespace
}  // namespace mechinterp
