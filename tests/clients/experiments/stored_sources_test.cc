#include "clients/experiments/stored_sources.h"

#include <memory>
#include <vector>

#include "clients/lib/prompts.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/clients/fake_model_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::ElementsAre;
using testing::FakeServer;
using ::testing::IsEmpty;

class RemarkKeeper : public ExperimentMonitor {
 public:
  void Remark(std::string_view text) override { remarks.emplace_back(text); }
  std::vector<std::string> remarks;
};

class StoredSourcesTest : public ::testing::Test {
 protected:
  // Five stored runs, deleted again.
  void StoreAndDelete() {
    const std::vector<v1::Prompt> prompts(5, UserPrompt("make a cake"));
    StoredSources sources(fake_.client.get(), prompts, {"logits"}, /*concurrency=*/1, &monitor_);
    ASSERT_THAT(sources.Get(), IsOk());
    ASSERT_EQ(fake_.service.stored_run_count(), 5);
  }

  FakeServer fake_;
  RemarkKeeper monitor_;
};

TEST_F(StoredSourcesTest, LeavesNothingBehind) {
  StoreAndDelete();
  EXPECT_EQ(fake_.service.stored_run_count(), 0);
  EXPECT_THAT(monitor_.remarks, IsEmpty());
}

TEST_F(StoredSourcesTest, TriesOnceToDeleteOnAServerThatIsLostAndSaysWhatIsLeft) {
  fake_.service.FailNext("DeleteActivation", std::vector<absl::Status>(50, absl::UnavailableError("gone")));
  StoreAndDelete();
  EXPECT_EQ(fake_.service.call_count("DeleteActivation"), 1);
  EXPECT_THAT(fake_.sleeps, IsEmpty());
  EXPECT_THAT(
      monitor_.remarks,
      ElementsAre("5 stored runs are left on the server (run-0, run-1, run-2, ...), which drops what is "
                  "not used: DeleteActivation: gone"));
}

TEST_F(StoredSourcesTest, GoesOnAfterAFaultThatConcernsOneRun) {
  fake_.service.FailNext("DeleteActivation", {absl::InternalError("broken"), absl::NotFoundError("expired")});
  StoreAndDelete();
  EXPECT_EQ(fake_.service.call_count("DeleteActivation"), 5);
  EXPECT_THAT(monitor_.remarks, ElementsAre("1 stored run is left on the server (run-0), which drops what is "
                                            "not used: DeleteActivation: broken"));
}

}  // namespace
}  // namespace mechinterp
