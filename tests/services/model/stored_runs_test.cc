// Stored runs over gRPC: a run that lies on the disk does what one in memory does.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "services/common/status.h"
#include "services/engine/operations/cached_run.h"
#include "services/engine/weights/pass_scratch.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;

class StoredRuns : public testing::Test {
 public:
  StoredRuns()
      : folder_(testing::TempDir() + "/abstract-stored-runs-" + std::to_string(::getpid()) + "-" +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(folder_);
  }
  ~StoredRuns() override {
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 protected:
  // A server with this folder, and so many bytes of memory for stored runs.
  ServiceFixture& Serve(int64_t max_stored_bytes, int64_t memory_limit_bytes = 0) {
    server_.reset();
    const engine::Model& model = *fixture_.model();
    auto directory = SpillDirectory::Open(folder_, {model.config(), model.serving_hash()});
    EXPECT_THAT(directory, IsOk());
    ModelServiceOptions options;
    options.max_stored_bytes = max_stored_bytes;
    options.memory_limit_bytes = memory_limit_bytes;
    options.scheduler.max_batch_rows = 16;
    options.scheduler.prefill_chunk_rows = 16;
    options.store_directory = *directory;
    server_ = std::make_unique<ServiceFixture>(fixture_.model(), options);
    return *server_;
  }

  v1::RunWithCacheRequest StoreRequest(const std::string& pattern = "blocks.*.attn.hook_z") {
    v1::RunWithCacheRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("b"));
    request.mutable_filter()->add_name_patterns(pattern);
    request.set_store(true);
    return request;
  }
  std::string Store(const std::string& pattern = "blocks.*.attn.hook_z") {
    const auto stored = server_->RunWithCache(StoreRequest(pattern));
    EXPECT_THAT(stored.status, IsOk());
    return stored.summary.handle();
  }

  v1::StoragePlace PlaceOf(const std::string& handle) {
    grpc::ClientContext context;
    v1::ListActivationsResponse list;
    EXPECT_THAT(server_->stub().ListActivations(&context, {}, &list), IsOk());
    for (const v1::StoredRun& run : list.runs()) {
      if (run.handle() == handle) return run.place();
    }
    return v1::STORAGE_PLACE_UNSPECIFIED;
  }
  v1::StoredRun Listed() {
    grpc::ClientContext context;
    v1::ListActivationsResponse list;
    EXPECT_THAT(server_->stub().ListActivations(&context, {}, &list), IsOk());
    return list.runs_size() == 1 ? list.runs(0) : v1::StoredRun();
  }

  // The answer to a patch from the run, without what times tell.
  v1::RunWithPatchResponse Patch(const std::string& handle, grpc::Status* status = nullptr) {
    v1::RunWithPatchRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    *request.add_interventions() = Parse<v1::Intervention>(
        "site { point: HOOK_POINT_Z layer: 2 } replacement { source { stored { handle: \"" + handle +
        "\" } } }");
    request.mutable_metrics()->set_top_token_count(50);
    grpc::ClientContext context;
    v1::RunWithPatchResponse response;
    const grpc::Status result = server_->stub().RunWithPatch(&context, request, &response);
    if (status != nullptr) {
      *status = result;
    } else {
      EXPECT_THAT(result, IsOk());
    }
    response.clear_timings();
    return response;
  }
  // All bytes that GetActivation sends.
  std::string Activations(const std::string& handle, grpc::Status* status = nullptr) {
    v1::GetActivationRequest request;
    request.set_handle(handle);
    grpc::ClientContext context;
    const auto reader = server_->stub().GetActivation(&context, request);
    v1::GetActivationResponse message;
    std::string bytes;
    while (reader->Read(&message)) {
      if (message.has_header()) bytes += message.header().SerializeAsString();
      if (message.has_chunk()) bytes += message.chunk().data();
    }
    const grpc::Status result = reader->Finish();
    if (status != nullptr) *status = result;
    return bytes;
  }

  std::string FileOf(const std::string& handle) const {
    return folder_ + "/" + SpillDirectory::FileName(handle);
  }

  const std::string folder_;
  engine::Fixture fixture_{"llama3-gqa"};
  std::unique_ptr<ServiceFixture> server_;
};

TEST_F(StoredRuns, APatchFromTheDiskIsAPatchFromMemoryBitForBit) {
  Serve(1 << 30);
  const std::string handle = Store("*");
  EXPECT_EQ(PlaceOf(handle), v1::STORAGE_PLACE_MEMORY);
  const v1::StoredRun listed = Listed();
  const std::string in_memory = Patch(handle).SerializeAsString(), activations = Activations(handle);
  EXPECT_GT(activations.size(), listed.total_byte_count());

  Serve(100'000);  // too little for the run, so it is read whenever it is used
  EXPECT_EQ(PlaceOf(handle), v1::STORAGE_PLACE_DISK);
  EXPECT_EQ(Patch(handle).SerializeAsString(), in_memory);
  EXPECT_EQ(Activations(handle), activations);
  v1::StoredRun from_disk = Listed();
  EXPECT_EQ(from_disk.place(), v1::STORAGE_PLACE_DISK);
  from_disk.set_place(v1::STORAGE_PLACE_MEMORY);
  *from_disk.mutable_expire_time() = listed.expire_time();
  EXPECT_EQ(from_disk.SerializeAsString(), listed.SerializeAsString());

  Serve(1 << 30);  // enough to keep it once it has been read
  EXPECT_EQ(Patch(handle).SerializeAsString(), in_memory);
  EXPECT_EQ(PlaceOf(handle), v1::STORAGE_PLACE_MEMORY);
}

TEST_F(StoredRuns, OldRunsGiveWayToNewOnesAndAllCanBeUsed) {
  Serve(40'000);
  std::vector<std::string> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(Store());
  EXPECT_EQ(PlaceOf(handles.front()), v1::STORAGE_PLACE_DISK);
  EXPECT_EQ(PlaceOf(handles.back()), v1::STORAGE_PLACE_MEMORY);
  const std::string expected = Patch(handles.back()).SerializeAsString();
  for (const std::string& handle : handles) EXPECT_EQ(Patch(handle).SerializeAsString(), expected);
}

TEST_F(StoredRuns, DamageIsTheClientsToKnow) {
  Serve(1 << 30);
  const std::string handle = Store();
  Serve(1 << 30);
  {
    std::fstream file(FileOf(handle), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1000, std::ios::end);
    file.put('\x55');
  }
  for (int i = 0; i < 2; ++i) {
    grpc::Status status;
    Patch(handle, &status);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
    EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "ACTIVATION_DAMAGED");
    EXPECT_THAT(status.error_message(), HasSubstr(handle));
    EXPECT_EQ(Activations(handle, &status), "");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DATA_LOSS);
  }
  EXPECT_EQ(PlaceOf(handle), v1::STORAGE_PLACE_UNSPECIFIED);
}

TEST_F(StoredRuns, ReadingARunBackTakesMemoryThatThereMustBe) {
  Serve(1 << 30);
  const std::string handle = Store("*");
  const int64_t bytes = static_cast<int64_t>(Listed().total_byte_count());
  const engine::Model& model = *fixture_.model();
  const int64_t fixed = model.total_weight_bytes() + engine::ScratchBytes(model.config(), 16);
  grpc::Status status;
  Serve(100'000, fixed + bytes);
  Activations(handle, &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(ErrorReason(FromGrpcStatus(status)), "MEMORY_LIMIT");
  Serve(100'000, fixed + bytes + 200'000);
  Activations(handle, &status);
  EXPECT_THAT(status, IsOk());
}

TEST_F(StoredRuns, RequestsMoveThemOutOfMemory) {
  const engine::Model& model = *fixture_.model();
  ServiceFixture& server =
      Serve(1 << 30, model.total_weight_bytes() + engine::ScratchBytes(model.config(), 16) + 400'000);
  v1::RunWithCacheRequest request = StoreRequest("logits");
  for (int i = 0; i < 100; ++i) ASSERT_THAT(server.RunWithCache(request).status, IsOk()) << i;
}

TEST_F(StoredRuns, PatternsThatOverlapAreCountedOnce) {
  ModelServiceOptions options;
  const auto needs = engine::ActivationBytes(fixture_.model()->config(),
                                             engine::MatchingSites("blocks.0.*", fixture_.model()->config()),
                                             fixture_.prompt("b").length(), fixture_.prompt("b").length());
  options.max_activation_bytes = needs;
  ServiceFixture server(fixture_.model(), options);
  v1::RunWithCacheRequest request = StoreRequest("blocks.0.*");
  request.mutable_filter()->add_name_patterns("blocks.0.*hook_z");
  *request.mutable_filter()->add_sites() = Parse<v1::HookSite>("point: HOOK_POINT_Z layer: 0");
  EXPECT_THAT(server.RunWithCache(request).status, IsOk());
  request.mutable_filter()->add_name_patterns("logits");
  EXPECT_EQ(server.RunWithCache(request).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace mechinterp
