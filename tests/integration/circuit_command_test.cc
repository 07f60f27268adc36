// `abstract circuit` on a planted model: what it tells of what it did, and of what it did not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/clients/commands/tool_fixture.h"
#include "tests/integration/planted_server.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::PlantedServer;

class CircuitCommand : public ::testing::Test {
 protected:
  testing::ToolOutcome Run(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--server",
                                          planted_.address(),
                                          "circuit",
                                          "--prompts",
                                          PlantedServer::Data("prompts.json"),
                                          "--refusal-phrases",
                                          PlantedServer::Data("refusal_phrases.json"),
                                          "--output-dir",
                                          folder_.File("out"),
                                          "--neurons",
                                          "8",
                                          "--edges",
                                          "30"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return testing::RunToolWith(arguments);
  }

  const PlantedServer planted_{"single_path"};
  const testing::TestFolder folder_;
};

TEST_F(CircuitCommand, OfTwoPairsSaysThatItTestsOnThem) {
  const auto outcome = Run({"--limit", "2", "--test-prompts", ""});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("On 2 pairs, all of which it was chosen on"));
  EXPECT_THAT(outcome.out, HasSubstr("these nodes alone do"));
}

TEST_F(CircuitCommand, SaysHowManyTestsAreNoOtherPairs) {
  const auto outcome =
      Run({"--limit", "3", "--test-prompts", PlantedServer::Data("prompts.json"), "--test-limit", "5"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("On 5 pairs, 3 of which it was chosen on"));
}

TEST_F(CircuitCommand, SaysWhatWasNotMeasured) {
  const auto outcome =
      Run({"--limit", "3", "--test-prompts", "", "--least-effect", "100", "--resamples", "0"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("On 1 other pairs"));
  EXPECT_THAT(outcome.out, HasSubstr("no node has an effect as large as --least-effect"));
  EXPECT_THAT(outcome.out, HasSubstr("stability was not measured"));
  EXPECT_THAT(outcome.out, Not(HasSubstr("these nodes alone do")));
  EXPECT_THAT(outcome.out, Not(HasSubstr("resamples of the pairs share")));
}

TEST_F(CircuitCommand, TakesNoMoreResamplesThanItCanCompare) {
  const auto outcome = Run({"--resamples", "10001"});
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.err, HasSubstr("--resamples"));
}

}  // namespace
}  // namespace mechinterp
