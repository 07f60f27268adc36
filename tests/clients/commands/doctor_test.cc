#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mechinterp/v1/doctor.pb.h"
#include "services/common/proto_json.h"
#include "tests/clients/commands/tool_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::ToolOutcome;

class DoctorTest : public testing::ToolTest {
 protected:
  DoctorTest() {
    check_.set_passed(true);
    check_.set_tolerance(0.01);
    check_.mutable_duration()->set_seconds(2);
    for (const double error : {0.001, 0.002, 0.003, 0.004}) {
      v1::LayerCheck& layer = *check_.add_layers();
      layer.set_layer(static_cast<uint32_t>(check_.layers_size() - 1));
      layer.set_relative_error(error);
    }
    check_.set_head_relative_error(0.005);
    fake_.service.set_device_check(check_);
  }

  static v1::DoctorReport ReportOf(const ToolOutcome& outcome) {
    v1::DoctorReport report;
    EXPECT_THAT(MessageFromJson(outcome.out, &report), IsOk()) << outcome.out;
    return report;
  }

  v1::CheckDeviceResponse check_;
};

TEST_F(DoctorTest, TellsDeviceMemoryCheckAndSpeed) {
  const ToolOutcome outcome = Run({"doctor"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("toy"), HasSubstr("cpu, abacus"), HasSubstr("libtorch 9.8.7"),
                                 HasSubstr("512.0 MiB taken by the server of 2048.0 MiB"),
                                 HasSubstr("weights nf4"), HasSubstr("serving")));
  EXPECT_THAT(outcome.out, HasSubstr("The device against the CPU: PASSED; tolerance 1.0e-02, 2.00 s"));
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("3            4.00e-03"), HasSubstr("head         5.00e-03")));
  EXPECT_THAT(outcome.out, Not(HasSubstr("PROBLEM")));
  EXPECT_THAT(outcome.err, HasSubstr("doctor"));  // Its progress.
}

// What the fake's clock says: 1 ms a prompt token, 10 ms a new one, 2 ms a run.
TEST_F(DoctorTest, SpeedsAreThoseOfTheServersClock) {
  const ToolOutcome outcome = Run({"doctor", "--json"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const v1::DoctorReport report = ReportOf(outcome);
  ASSERT_EQ(report.speeds_size(), 3);
  EXPECT_EQ(report.speeds(0).kind(), v1::SPEED_KIND_DECODE);
  EXPECT_EQ(report.speeds(0).count(), 32u);
  EXPECT_DOUBLE_EQ(report.speeds(0).count_per_second(), 100);
  EXPECT_EQ(report.speeds(1).kind(), v1::SPEED_KIND_PREFILL);
  EXPECT_EQ(report.speeds(1).prompt_token_count(), 128u);
  EXPECT_DOUBLE_EQ(report.speeds(1).count_per_second(), 128 / 0.138);
  EXPECT_EQ(report.speeds(2).kind(), v1::SPEED_KIND_SWEEP);
  EXPECT_EQ(report.speeds(2).count(), 16u);  // 4 layers of 4 heads.
  EXPECT_DOUBLE_EQ(report.speeds(2).count_per_second(), 500);
  for (const v1::GenerateRequest& request : fake_.service.generate_requests()) {
    EXPECT_TRUE(request.sampling().ignore_stop_tokens());
  }
}

TEST_F(DoctorTest, PrintsOneJsonDocumentForAReport) {
  const v1::DoctorReport report = ReportOf(Run({"doctor", "--json", "--quiet"}));
  EXPECT_EQ(report.model().libtorch_version(), "9.8.7");
  EXPECT_EQ(report.health(), "serving");
  EXPECT_TRUE(report.device_check().passed());
  EXPECT_EQ(report.device_check().layers_size(), 4);
  EXPECT_THAT(report.client_version(), Not(IsEmpty()));
  EXPECT_GT(report.create_time().seconds(), 0);
  EXPECT_THAT(report.problems(), IsEmpty());
  EXPECT_THAT(report.remarks(), IsEmpty());
}

TEST_F(DoctorTest, ExitsWithOneWhenTheCheckFails) {
  check_.set_passed(false);
  check_.set_problem("layer 3: relative error 0.41");
  fake_.service.set_device_check(check_);
  const ToolOutcome outcome = Run({"doctor"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("The device against the CPU: FAILED"),
                                 HasSubstr("PROBLEM: device check: layer 3: relative error 0.41")));
  EXPECT_THAT(outcome.out, HasSubstr("tokens/s"));  // The rest is still told.
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("layer 3: relative error 0.41"), HasSubstr("--device cpu")));
}

TEST_F(DoctorTest, AServerTooOldForTheCheckIsNoProblem) {
  fake_.service.FailNext("CheckDevice", {absl::UnimplementedError("")});
  const ToolOutcome outcome = Run({"doctor", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const v1::DoctorReport report = ReportOf(outcome);
  EXPECT_FALSE(report.has_device_check());
  EXPECT_THAT(report.remarks(), ElementsAre(HasSubstr("too old to check its device")));
  EXPECT_EQ(report.speeds_size(), 3);
}

TEST_F(DoctorTest, GoesOnWhenAPartFails) {
  fake_.service.FailNext("CheckDevice", {absl::InternalError("out of abaci")});
  fake_.service.FailNext("RunPatchSweep", {absl::FailedPreconditionError("no sweeps today")});
  const ToolOutcome outcome = Run({"doctor", "--json"});
  EXPECT_EQ(outcome.code, 1);
  const v1::DoctorReport report = ReportOf(outcome);
  EXPECT_THAT(report.problems(),
              ElementsAre(HasSubstr("device check: INTERNAL: "), HasSubstr("sweep: FAILED_PRECONDITION: ")));
  EXPECT_EQ(report.speeds_size(), 2);
}

}  // namespace
}  // namespace mechinterp
