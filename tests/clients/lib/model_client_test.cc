#include "clients/lib/model_client.h"

#include "clients/lib/activation_reader.h"
#include "clients/lib/connection.h"
#include "clients/lib/health.h"
#include "clients/lib/prompts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/status.h"
#include "tests/clients/fake_model_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using testing::FakeServer;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::GenerateRequest Ask(const std::string& message) {
  v1::GenerateRequest request;
  *request.mutable_prompt() = UserPrompt(message);
  return request;
}

TEST(ModelClient, RetriesAServerThatComesBack) {
  FakeServer fake;
  fake.service.FailNext("GetModel", {absl::UnavailableError("starting"), absl::UnavailableError("starting")});
  const auto model = fake.client->GetModel();
  ASSERT_THAT(model, IsOk());
  EXPECT_EQ(model->identity().name(), "toy");
  EXPECT_EQ(fake.service.call_count("GetModel"), 3);
  EXPECT_THAT(fake.sleeps, ElementsAre(absl::Milliseconds(250), absl::Milliseconds(500)));
}

TEST(ModelClient, WaitsAsLongAsAFullServerAsks) {
  FakeServer fake;
  fake.service.FailNext("Generate", {TryAgainLater("full", "QUEUE_FULL", absl::Seconds(3))});
  EXPECT_THAT(fake.client->Generate(Ask("hello")), IsOk());
  EXPECT_THAT(fake.sleeps, ElementsAre(absl::Seconds(3)));
}

TEST(ModelClient, PassesErrorsOnWithTheirDetails) {
  FakeServer fake;
  Violations violations;
  violations.Add("prompt", "must not be empty");
  fake.service.FailNext("Tokenize", {ToStatus(violations)});
  const auto tokens = fake.client->Tokenize({});
  EXPECT_TRUE(absl::IsInvalidArgument(tokens.status()));
  EXPECT_THAT(DescribeStatus(tokens.status()), HasSubstr("Tokenize: "));
  EXPECT_THAT(DescribeStatus(tokens.status()), HasSubstr("must not be empty"));
  EXPECT_THAT(fake.sleeps, IsEmpty());
}

TEST(ModelClient, GivesUpOnAServerThatIsNotThere) {
  ModelClientOptions options;
  options.retry.max_attempts = 3;
  int sleeps = 0;
  options.sleep = [&](absl::Duration) { ++sleeps; };
  ModelClient client(
      v1::ModelService::NewStub(grpc::CreateChannel("127.0.0.1:1", grpc::InsecureChannelCredentials())),
      options);
  EXPECT_TRUE(absl::IsUnavailable(client.GetModel().status()));
  EXPECT_EQ(sleeps, 2);
}

TEST(ModelClient, StreamsTextAsItComes) {
  FakeServer fake;
  std::vector<std::string> pieces;
  const auto generation =
      fake.client->Generate(Ask("make a bomb"), [&](std::string_view text) { pieces.emplace_back(text); });
  ASSERT_THAT(generation, IsOk());
  EXPECT_THAT(pieces, ElementsAre("I ca", "nnot help with that."));
  EXPECT_EQ(generation->summary.continuation().text(), testing::kRefusal);
}

TEST(ModelClient, PutsChunksTogether) {
  FakeServer fake;
  v1::RunWithCacheRequest request;
  *request.mutable_prompt() = UserPrompt("make a bomb");
  request.mutable_filter()->add_sites()->set_point(v1::HOOK_POINT_LOGITS);
  const auto run = fake.client->RunWithCache(request);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->activations.size(), 1u);
  std::vector<uint32_t> context;
  std::vector<float> expected;
  for (const uint32_t id : run->header.prompt_token_ids()) {
    context.push_back(id);
    const std::vector<float> row = testing::ToyLogits(context, {});
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_EQ(run->activations[0].values, expected);
}

// The fake gives each layer a page.
TEST(ModelClient, FollowsThePagesOfHookPoints) {
  FakeServer fake;
  const auto points = fake.client->ListHookPoints("");
  ASSERT_THAT(points, IsOk());
  ASSERT_EQ(points->hook_points_size(), testing::kLayers);
  EXPECT_EQ(points->hook_points(testing::kLayers - 1).site().layer(), testing::kLayers - 1);
  EXPECT_EQ(points->next_page_token(), "");
}

TEST(ModelClient, JoinsTheSitesOfASweep) {
  FakeServer fake;
  v1::RunPatchSweepRequest request;
  *request.mutable_prompt() = UserPrompt("make a bomb");
  v1::SweepGrid& grid = *request.mutable_grid();
  grid.mutable_prototype()->mutable_zeroing();
  grid.add_points(v1::HOOK_POINT_Z);
  grid.add_axes(v1::SWEEP_AXIS_HEAD);
  const auto sweep = fake.client->RunPatchSweep(request);
  ASSERT_THAT(sweep, IsOk());
  ASSERT_EQ(sweep->header.sites_size(), testing::kLayers * testing::kHeads);
  for (int i = 0; i < sweep->header.sites_size(); ++i) {
    EXPECT_EQ(sweep->header.sites(i).site().layer(), i / testing::kHeads);
    EXPECT_EQ(sweep->header.sites(i).head(), i % testing::kHeads);
  }
}

TEST(ModelClient, TellsEveryAttempt) {
  FakeServer fake;
  std::vector<std::string> attempts;
  ModelClientOptions options;
  options.sleep = [](absl::Duration) {};
  options.on_attempt = [&](std::string_view method, const absl::Status& status) {
    attempts.push_back(std::string(method) + " " + absl::StatusCodeToString(status.code()));
  };
  ModelClient client(
      v1::ModelService::NewStub(grpc::CreateChannel(fake.address(), grpc::InsecureChannelCredentials())),
      options);
  fake.service.FailNext("GetModel", {absl::UnavailableError("")});
  ASSERT_THAT(client.GetModel(), IsOk());
  EXPECT_THAT(attempts, ElementsAre("GetModel UNAVAILABLE", "GetModel OK"));
}

// Sends so many messages with a pause before each, then nothing more.
class SlowService final : public v1::ModelService::Service {
 public:
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest*,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    v1::GenerateResponse message;
    for (int i = 0; i < messages; ++i) {
      absl::SleepFor(pause);
      if (i + 1 == messages && ends) {
        message.mutable_summary();
      } else {
        message.mutable_header();
      }
      writer->Write(message);
    }
    while (!ends && !context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
    return grpc::Status::OK;
  }

  int messages = 0;
  absl::Duration pause;
  bool ends = false;
};

class SlowStream : public ::testing::Test {
 protected:
  SlowStream() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    server_ = builder.BuildAndStart();
  }
  absl::Status Generate(absl::Duration timeout) {
    ModelClientOptions options;
    options.timeout = timeout;
    ModelClient client(v1::ModelService::NewStub(ConnectTo("127.0.0.1:" + std::to_string(port_))), options);
    return client.Generate(Ask("hello")).status();
  }

  SlowService service_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(SlowStream, MayLastForLongerThanTheTimeout) {
  service_.messages = 8;
  service_.pause = absl::Milliseconds(300);
  service_.ends = true;
  EXPECT_EQ(Generate(absl::Seconds(2)), absl::OkStatus());  // 2.4 s in all
}

TEST_F(SlowStream, MayNotBeSilentForSoLong) {
  service_.messages = 1;
  const absl::Status status = Generate(absl::Milliseconds(300));
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("nothing came for 300ms"));
}

TEST(CheckHealth, ReadsTheStandardHealthService) {
  FakeServer fake;
  const auto channel = grpc::CreateChannel(fake.address(), grpc::InsecureChannelCredentials());
  const auto serving = CheckHealth(channel, absl::Seconds(10));
  ASSERT_THAT(serving, IsOk());
  EXPECT_EQ(*serving, ServingState::kServing);
  fake.server->GetHealthCheckService()->SetServingStatus(false);
  EXPECT_EQ(CheckHealth(channel, absl::Seconds(10)).value(), ServingState::kNotServing);
}

class ActivationReaderTest : public ::testing::Test {
 protected:
  ActivationReaderTest() {
    v1::ActivationInfo& info = *header_.add_activations();
    info.set_name("logits");
    info.set_data_type(v1::DATA_TYPE_FLOAT32);
    info.set_byte_count(8);
  }

  static v1::ActivationChunk Chunk(uint64_t offset, size_t size) {
    v1::ActivationChunk chunk;
    chunk.set_offset_bytes(offset);
    chunk.set_data(std::string(size, 0));
    return chunk;
  }

  v1::RunHeader header_;
  ActivationReader reader_{/*stored=*/false};
};

TEST_F(ActivationReaderTest, NoticesMissingBytes) {
  ASSERT_THAT(reader_.Begin(header_), IsOk());
  ASSERT_THAT(reader_.Add(Chunk(0, 4)), IsOk());
  ASSERT_THAT(reader_.End({}), IsOk());
  EXPECT_EQ(std::move(reader_).Finish().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ActivationReaderTest, NoticesAMissingSummary) {
  ASSERT_THAT(reader_.Begin(header_), IsOk());
  ASSERT_THAT(reader_.Add(Chunk(0, 8)), IsOk());
  EXPECT_EQ(std::move(reader_).Finish().status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(ActivationReaderTest, RefusesChunksOutsideTheActivation) {
  ASSERT_THAT(reader_.Begin(header_), IsOk());
  for (const uint64_t offset : {uint64_t{4}, uint64_t{9}, ~uint64_t{0}}) {
    EXPECT_EQ(reader_.Add(Chunk(offset, 8)).code(), absl::StatusCode::kDataLoss) << offset;
  }
}

TEST_F(ActivationReaderTest, RefusesDamagedChunks) {
  ASSERT_THAT(reader_.Begin(header_), IsOk());
  v1::ActivationChunk chunk = Chunk(0, 8);
  chunk.set_crc32(0x6522df69);  // of eight zeros
  EXPECT_THAT(reader_.Add(chunk), IsOk());
  chunk.mutable_data()->at(5) = 1;
  EXPECT_EQ(reader_.Add(chunk).code(), absl::StatusCode::kDataLoss);
}

TEST_F(ActivationReaderTest, ReadsShortTypes) {
  header_.mutable_activations(0)->set_data_type(v1::DATA_TYPE_BFLOAT16);
  ASSERT_THAT(reader_.Begin(header_), IsOk());
  v1::ActivationChunk chunk = Chunk(2, 6);
  chunk.set_data(std::string("\x80\x3f\x49\x40\x00\xc0", 6));  // 1, 3.140625, -2
  ASSERT_THAT(reader_.Add(chunk), IsOk());
  ASSERT_THAT(reader_.Add(Chunk(0, 2)), IsOk());
  EXPECT_EQ(reader_.Add(Chunk(1, 2)).code(), absl::StatusCode::kDataLoss);  // within a value
  ASSERT_THAT(reader_.End({}), IsOk());
  const auto run = std::move(reader_).Finish();
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->activations[0].values, (std::vector<float>{0, 1, 3.140625f, -2}));
}

}  // namespace
}  // namespace mechinterp
