// A server with a memory limit turns away what would not fit before any work
// begins, and serves the rest.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/common/status.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/operations/generation.h"
#include "services/engine/weights/pass_scratch.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;

constexpr int kBatchRows = 16;

class MemoryLimit : public testing::Test {
 protected:
  // A server with so many bytes for requests.
  std::unique_ptr<ServiceFixture> ServerWith(int64_t bytes_for_requests) {
    ModelServiceOptions options;
    options.scheduler.max_batch_rows = kBatchRows;
    options.scheduler.prefill_chunk_rows = kBatchRows;
    options.memory_limit_bytes = fixture_.model()->total_weight_bytes() +
                                 engine::ScratchBytes(fixture_.model()->config(), kBatchRows) +
                                 bytes_for_requests;
    return std::make_unique<ServiceFixture>(fixture_.model(), options);
  }

  v1::RunWithCacheRequest CacheOf(const std::string& pattern) {
    v1::RunWithCacheRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    request.mutable_filter()->add_name_patterns(pattern);
    return request;
  }

  v1::GenerateRequest Generation(int new_tokens) {
    v1::GenerateRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    request.mutable_sampling()->set_max_new_tokens(new_tokens);
    request.mutable_sampling()->set_ignore_stop_tokens(true);
    return request;
  }

  v1::GetModelResponse Model(ServiceFixture& server) {
    grpc::ClientContext context;
    v1::GetModelResponse model;
    EXPECT_THAT(server.stub().GetModel(&context, {}, &model), IsOk());
    return model;
  }

  // Of a request that edits and records nothing.
  int64_t RequestNeeds(int64_t run_bytes) {
    engine::PlanCompiler compiler(fixture_.model()->config());
    Violations none;
    compiler.Add(fixture_.prompt("a"), {}, {}, none.root());
    return engine::RequestBytes(fixture_.model()->config(), compiler, kBatchRows, run_bytes);
  }
  int64_t GenerationNeeds(int new_tokens, int64_t metrics_bytes = 0) {
    return RequestNeeds(metrics_bytes + engine::GenerationBytes(fixture_.model()->config(),
                                                                fixture_.prompt("a").length(), new_tokens));
  }

  engine::Fixture fixture_{"llama3-gqa"};
};

void ExpectRefused(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "MEMORY_LIMIT");
  EXPECT_THAT(status.error_message(), HasSubstr("the request may take"));
  EXPECT_FALSE(RetryDelay(FromGrpcStatus(status)).has_value());
}

TEST_F(MemoryLimit, AGenerationFitsUpToItsEstimate) {
  auto server = ServerWith(GenerationNeeds(100));
  EXPECT_THAT(server->Generate(Generation(100)).status, IsOk());
  ExpectRefused(server->Generate(Generation(101)).status);
  EXPECT_THAT(server->Generate(Generation(100)).status, IsOk());  // the memory came back
}

TEST_F(MemoryLimit, SoDoesOneThatIsMeasured) {
  v1::GenerateRequest request = Generation(100);
  *request.mutable_metrics() =
      Parse<v1::MetricOptions>("refusal_openings { ids: [1, 2, 3, 4, 5, 6] } compliance_openings { ids: 7 }");
  // Logits: floats and doubles of the clean run's, and the rows in which the openings are read.
  const int64_t needs = GenerationNeeds(100, 512 * (4 + 8) + 5 * 512 * 4);
  EXPECT_THAT(ServerWith(needs)->Generate(request).status, IsOk());
  ExpectRefused(ServerWith(needs - 1)->Generate(request).status);
}

TEST_F(MemoryLimit, SoDoesWhatIsRecorded) {
  auto server = ServerWith(100'000);
  EXPECT_THAT(server->RunWithCache(CacheOf("logits")).status, IsOk());
  ExpectRefused(server->RunWithCache(CacheOf("*")).status);
}

TEST_F(MemoryLimit, SoDoesASweep) {
  v1::RunPatchSweepRequest request;
  *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
  request.mutable_grid()->mutable_prototype()->mutable_zeroing();
  request.mutable_grid()->add_points(v1::HOOK_POINT_RESID_PRE);
  request.mutable_grid()->add_axes(v1::SWEEP_AXIS_POSITION);
  EXPECT_THAT(ServerWith(2'000'000)->Sweep(request).status, IsOk());
  ExpectRefused(ServerWith(50'000)->Sweep(request).status);
}

TEST_F(MemoryLimit, StoredActivationsCount) {
  auto server = ServerWith(100'000);
  v1::RunWithCacheRequest request = CacheOf("logits");
  request.set_store(true);
  grpc::Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = server->RunWithCache(request).status;
  ExpectRefused(status);
  EXPECT_THAT(status.error_message(), HasSubstr("stored activations hold"));
}

uint64_t Part(const v1::GetModelResponse& model, v1::MemoryPart part) {
  for (const v1::MemoryUsage& usage : model.memory()) {
    if (usage.part() == part) return usage.byte_count();
  }
  return 0;
}

TEST_F(MemoryLimit, WhatIsHeldIsToldByPart) {
  auto server = ServerWith(GenerationNeeds(5000));
  grpc::ClientContext context;
  auto reader = server->stub().Generate(&context, Generation(5000));
  v1::GenerateResponse message;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(reader->Read(&message));
  const v1::GetModelResponse running = Model(*server);
  // The prompt and at least 8 of the 9 tokens read have been through the model.
  const auto one = static_cast<uint64_t>(engine::KeyValueBytes(fixture_.model()->config(), 1));
  EXPECT_GE(Part(running, v1::MEMORY_PART_KEY_VALUE_CACHE), (fixture_.prompt("a").length() + 8) * one);
  EXPECT_LE(Part(running, v1::MEMORY_PART_KEY_VALUE_CACHE), static_cast<uint64_t>(GenerationNeeds(5000)));
  EXPECT_GT(Part(running, v1::MEMORY_PART_SCRATCH), 0u);
  EXPECT_LE(Part(running, v1::MEMORY_PART_SCRATCH),
            static_cast<uint64_t>(engine::ScratchBytes(fixture_.model()->config(), kBatchRows)));
  context.TryCancel();
  reader->Finish();
  for (int i = 0; i < 1000 && Model(*server).reserved_bytes() > 0; ++i)
    absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(Part(Model(*server), v1::MEMORY_PART_KEY_VALUE_CACHE), 0u);
}

TEST_F(MemoryLimit, IsToldWithWhatIsReserved) {
  auto server = ServerWith(GenerationNeeds(5000));
  EXPECT_EQ(Model(*server).reserved_bytes(), 0u);
  {
    grpc::ClientContext context;
    auto reader = server->stub().Generate(&context, Generation(5000));
    v1::GenerateResponse message;
    ASSERT_TRUE(reader->Read(&message));
    const v1::GetModelResponse model = Model(*server);
    EXPECT_EQ(model.reserved_bytes(), static_cast<uint64_t>(GenerationNeeds(5000)));
    EXPECT_GT(model.memory_limit_bytes(), model.weight_bytes() + model.reserved_bytes());
    context.TryCancel();
    reader->Finish();
  }
  for (int i = 0; i < 1000 && Model(*server).reserved_bytes() > 0; ++i)
    absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(Model(*server).reserved_bytes(), 0u);
}

// The values of edits are there once for each of the prompts that they are compiled for.
TEST_F(MemoryLimit, CountsEditsForEachOfTheirPrompts) {
  v1::RunReadoutRequest readout;
  v1::RunAttributionRequest attribution;
  for (int i = 0; i < 500; ++i) {
    *readout.add_prompts() = ToProto(fixture_.prompt("a"));
    *attribution.add_pairs()->mutable_prompt() = ToProto(fixture_.prompt("a"));
  }
  v1::Intervention addition;
  addition.mutable_addition()->mutable_vector()->set_data(std::string(1 << 20, 0));
  *readout.add_interventions() = *attribution.add_interventions() = addition;

  const auto outcomes = [&](ServiceFixture& server) {
    grpc::ClientContext first, second;
    return std::vector{server.stub().RunReadout(&first, readout)->Finish(),
                       server.stub().RunAttribution(&second, attribution)->Finish()};
  };
  // A GiB of plans, from a megabyte.
  const auto limited = ServerWith(100'000'000);
  for (const grpc::Status& status : outcomes(*limited)) ExpectRefused(status);
  *readout.add_interventions() = *attribution.add_interventions() = addition;
  *readout.add_interventions() = *attribution.add_interventions() = addition;
  ServiceFixture unlimited(fixture_.model());
  for (const grpc::Status& status : outcomes(unlimited)) {
    EXPECT_THAT(ViolationsOf(status), testing::ElementsAre(testing::Pair(
                                          "interventions", HasSubstr("compiled for each of 500 prompts"))));
  }
}

TEST_F(MemoryLimit, TurnsAwayCircuitsThatDoNotFit) {
  const auto server = ServerWith(1000);
  v1::RunCircuitRequest request;
  *request.mutable_prompt() = *request.mutable_source_prompt() = ToProto(fixture_.prompt("a"));
  request.add_nodes("L0.H0");
  request.add_circuits();
  grpc::ClientContext context;
  const auto reader = server->stub().RunCircuit(&context, request);
  v1::RunCircuitResponse message;
  EXPECT_FALSE(reader->Read(&message));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

}  // namespace
}  // namespace mechinterp
