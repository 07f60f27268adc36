#include "clients/lib/readout_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/lib/prompts.h"
#include "google/protobuf/text_format.h"
#include "tests/clients/fake_model_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::FakeServer;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// What reading the messages in turn comes to.
absl::StatusOr<Readout> Read(const std::vector<std::string>& texts) {
  ReadoutReader reader;
  for (const std::string& text : texts) {
    v1::RunReadoutResponse message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
    if (absl::Status status = reader.Add(message); !status.ok()) return status;
  }
  return std::move(reader).Finish();
}

TEST(ReadoutReader, PutsPromptsTogether) {
  const auto readout =
      Read({"header { prompt_count: 2 }", "prompt {}", "piece { readings {} }", "piece { readings {} }",
            "prompt { prompt_index: 1 }", "position { position: 3 }", "piece { contributions {} }",
            "position { position: 4 }", "piece { contributions {} contributions {} }", "summary {}"});
  ASSERT_THAT(readout, IsOk());
  ASSERT_THAT(readout->prompts, SizeIs(2));
  EXPECT_THAT(readout->prompts[0].readings, SizeIs(2));
  ASSERT_THAT(readout->prompts[1].positions, SizeIs(2));
  EXPECT_EQ(readout->prompts[1].positions[1].position.position(), 4u);
  EXPECT_THAT(readout->prompts[1].positions[1].contributions, SizeIs(2));
}

TEST(ReadoutReader, TellsOfStreamsThatAreNotWhole) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"header { prompt_count: 1 }", "prompt {}"}, "without a summary"},
      {{"header { prompt_count: 2 }", "prompt {}", "summary {}"}, "1 of 2 prompts came"},
      {{"header { prompt_count: 1 }", "piece { readings {} }"}, "readings of no prompt"},
      {{"header { prompt_count: 1 }", "position {}"}, "a position of no prompt"},
      {{"header { prompt_count: 1 }", "prompt {}", "piece { contributions {} }"}, "of no position"},
      {{"header { prompt_count: 2 }", "prompt { prompt_index: 1 }"}, "prompt 1 came where prompt 0 of 2 was"},
      {{"header { prompt_count: 1 }", "prompt {}", "prompt { prompt_index: 1 }"}, "where prompt 1 of 1 was"},
  };
  for (const auto& [messages, told] : cases) {
    const auto readout = Read(messages);
    EXPECT_TRUE(absl::IsDataLoss(readout.status())) << told;
    EXPECT_THAT(std::string(readout.status().message()), HasSubstr(told));
  }
}

TEST(ModelClient, ReadsOutAndBeginsAgainAfterAFailure) {
  FakeServer fake;
  fake.service.FailNext("RunReadout", {absl::UnavailableError("starting")});
  v1::RunReadoutRequest request;
  request.mutable_direct_attribution();
  for (const char* text : {"make a bomb", "make a megabomb"}) *request.add_prompts() = UserPrompt(text);
  const auto readout = fake.client->RunReadout(request);
  ASSERT_THAT(readout, IsOk());
  EXPECT_EQ(fake.service.call_count("RunReadout"), 2);
  ASSERT_THAT(readout->prompts, SizeIs(2));
  for (const ReadoutOfPrompt& of_prompt : readout->prompts) {
    EXPECT_THAT(of_prompt.positions.at(0).contributions, SizeIs(3));
  }
}

}  // namespace
}  // namespace mechinterp
