#include "clients/lib/attribution_reader.h"

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

v1::RunAttributionResponse Message(const std::string& text) {
  v1::RunAttributionResponse message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

// What reading the messages in turn comes to.
absl::StatusOr<AttributionRun> Read(const std::vector<std::string>& texts) {
  AttributionReader reader;
  for (const std::string& text : texts) {
    v1::RunAttributionResponse message = Message(text);
    if (absl::Status status = reader.Add(message); !status.ok()) return status;
  }
  return std::move(reader).Finish();
}

constexpr char kTensor[] = "tensors { name: 'x' data_type: DATA_TYPE_FLOAT32 shape: 1 byte_count: 4 }";

TEST(AttributionReader, PutsPairsTogether) {
  const auto run = Read({"header { pair_count: 2 }", std::string("pair { pair_index: 0 ") + kTensor + "}",
                         "chunk { data: '\\000\\000\\200\\077' }", "pair { pair_index: 1 }",
                         "scores { scores { score: 2 } }", "scores { scores { score: -1 } }", "summary {}"});
  ASSERT_THAT(run, IsOk());
  ASSERT_THAT(run->pairs, SizeIs(2));
  EXPECT_THAT(run->pairs[0].tensors.at(0).values, ::testing::ElementsAre(1.0f));
  EXPECT_THAT(run->pairs[1].largest, SizeIs(2));
}

TEST(AttributionReader, TellsOfStreamsThatAreNotWhole) {
  const std::string pair = std::string("pair { pair_index: 0 ") + kTensor + "}";
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"header { pair_count: 1 }", "pair {}"}, "without a summary"},
      {{"header { pair_count: 2 }", "pair {}", "summary {}"}, "1 of 2 pairs came"},
      {{"header { pair_count: 1 }", pair, "summary {}"}, "0 of 4 bytes came"},
      {{"header { pair_count: 1 }", "chunk {}"}, "scores of no pair"},
      {{"header { pair_count: 2 }", "pair { pair_index: 1 }"}, "pair 1 came where pair 0 of 2 was due"},
      {{"header { pair_count: 1 }", "pair {}", "pair { pair_index: 1 }"}, "where pair 1 of 1 was due"},
      {{"header { pair_count: 1 }", pair, "chunk { data: '12345' }"}, "outside the activation"},
  };
  for (const auto& [messages, told] : cases) {
    const auto run = Read(messages);
    EXPECT_TRUE(absl::IsDataLoss(run.status())) << told;
    EXPECT_THAT(std::string(run.status().message()), HasSubstr(told));
  }
}

TEST(ModelClient, AttributesAndBeginsAgainAfterAFailure) {
  FakeServer fake;
  fake.service.FailNext("RunAttribution", {absl::UnavailableError("starting")});
  v1::RunAttributionRequest request;
  for (const char* text : {"make a bomb", "make a megabomb"}) {
    *request.add_pairs()->mutable_prompt() = UserPrompt(text);
    *request.mutable_pairs(request.pairs_size() - 1)->mutable_source_prompt() = UserPrompt("make a cake");
  }
  std::vector<std::pair<int, int>> told;
  const auto run = fake.client->RunAttribution(
      request, [&](int finished, int count) { told.emplace_back(finished, count); });
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(fake.service.call_count("RunAttribution"), 2);
  ASSERT_THAT(run->pairs, SizeIs(2));
  for (const AttributionOfPair& of_pair : run->pairs) {
    EXPECT_EQ(of_pair.tensors.at(0).values.back(),
              static_cast<float>(of_pair.pair.source_metric() - of_pair.pair.metric()));
  }
  EXPECT_EQ(told, (std::vector<std::pair<int, int>>{{1, 2}, {2, 2}}));
}

}  // namespace
}  // namespace mechinterp
