#include "services/common/status.h"

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "services/common/status_macros.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::SizeIs;

google::rpc::BadRequest BadRequestOf(const absl::Status& status) {
  google::rpc::BadRequest bad_request;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  EXPECT_TRUE(payload.has_value());
  if (payload.has_value()) bad_request.ParseFromString(std::string(*payload));
  return bad_request;
}

TEST(GrpcStatus, KeepsCodeMessageAndEveryPayloadBothWays) {
  absl::Status status =
      ErrorWithReason(absl::StatusCode::kNotFound, "no such run: «ü»", "RUN_NOT_FOUND", {{"run_id", "a"}});
  status.SetPayload("example.com/Custom", absl::Cord(std::string("\0\xff\n", 3)));
  const grpc::Status sent = ToGrpcStatus(status);
  EXPECT_EQ(sent.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(sent.error_message(), "no such run: «ü»");
  EXPECT_EQ(FromGrpcStatus(sent), status);
}

TEST(GrpcStatus, MapsEveryCode) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "m");
    EXPECT_EQ(static_cast<int>(ToGrpcStatus(status).error_code()), code);
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
  EXPECT_THAT(ToGrpcStatus(absl::OkStatus()), IsOk());
  EXPECT_THAT(FromGrpcStatus(grpc::Status::OK), IsOk());
}

TEST(GrpcStatus, ReadsWhatAnotherImplementationSent) {
  google::rpc::Status details;
  details.set_code(5);
  google::rpc::ErrorInfo info;
  info.set_reason("GONE");
  details.add_details()->PackFrom(info);
  const grpc::Status received(grpc::StatusCode::NOT_FOUND, "gone", details.SerializeAsString());
  EXPECT_EQ(ErrorReason(FromGrpcStatus(received)), "GONE");
}

TEST(GrpcStatus, IgnoresDetailsThatAreNoStatus) {
  const grpc::Status received(grpc::StatusCode::INTERNAL, "broken", "\xff\xff not a protobuf");
  EXPECT_EQ(FromGrpcStatus(received), absl::InternalError("broken"));
}

TEST(GrpcStatus, CutsMessagesThatWouldOverflowTheTrailers) {
  std::string message(1599, 'x');
  message += "ü and a stack trace" + std::string(10'000, 'y');
  const grpc::Status sent = ToGrpcStatus(absl::InternalError(message));
  EXPECT_THAT(sent.error_message(), SizeIs(1602));
  EXPECT_THAT(sent.error_message(), EndsWith("xx..."));  // the two-byte character is not halved
}

TEST(CodeName, IsThatOfTheProtocol) {
  EXPECT_EQ(CodeName(grpc::StatusCode::OK), "OK");
  EXPECT_EQ(CodeName(grpc::StatusCode::UNAUTHENTICATED), "UNAUTHENTICATED");
  EXPECT_EQ(CodeName(static_cast<grpc::StatusCode>(17)), "UNKNOWN");
}

TEST(Violations, ReportsEveryFieldAtOnce) {
  Violations violations;
  EXPECT_TRUE(violations.empty());
  EXPECT_THAT(ToStatus(violations), IsOk());
  violations.Add("interventions[2].site.layer", "must be below 8");
  violations.Add("prompt", "must not be empty");

  const absl::Status status = ToStatus(violations);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "interventions[2].site.layer: must be below 8; prompt: must not be empty");
  EXPECT_EQ(ErrorReason(status), "INVALID_REQUEST");
  const google::rpc::BadRequest bad_request = BadRequestOf(status);
  ASSERT_EQ(bad_request.field_violations_size(), 2);
  EXPECT_EQ(bad_request.field_violations(0).field(), "interventions[2].site.layer");
  EXPECT_EQ(bad_request.field_violations(1).description(), "must not be empty");
}

TEST(Violations, StaysSmallEnoughForTrailersAndCountsTheRest) {
  Violations violations;
  for (int i = 0; i < 1000; ++i) violations.Add(absl::StrCat("sets[", i, "]"), std::string(900, 'x'));
  const absl::Status status = ToStatus(violations);
  const grpc::Status sent = ToGrpcStatus(status);
  // What gRPC counts: the message, and the details in base64.
  EXPECT_LT(sent.error_message().size() + sent.error_details().size() * 4 / 3, 7900);
  const int reported = BadRequestOf(status).field_violations_size();
  EXPECT_GE(reported, 5);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat("and ", 1000 - std::min(reported, 8), " more")));
}

TEST(TryAgainLater, CarriesTheDelay) {
  const absl::Status status = TryAgainLater("the queue is full", "QUEUE_FULL", absl::Milliseconds(1500));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(status), "QUEUE_FULL");
  EXPECT_EQ(RetryDelay(FromGrpcStatus(ToGrpcStatus(status))), absl::Milliseconds(1500));
  EXPECT_EQ(RetryDelay(absl::InternalError("x")), std::nullopt);
}

TEST(DescribeStatus, TellsCodeMessageViolationsReasonAndDelay) {
  EXPECT_EQ(DescribeStatus(TryAgainLater("full", "QUEUE_FULL", absl::Seconds(2))),
            "RESOURCE_EXHAUSTED: full\n  reason: QUEUE_FULL\n  retry in: 2s");
  Violations violations;
  violations.Add("a.b", "is odd");
  EXPECT_EQ(DescribeStatus(ToStatus(violations)), "INVALID_ARGUMENT: a.b: is odd\n  reason: INVALID_REQUEST");
  violations.Add("c", "is even");
  EXPECT_EQ(DescribeStatus(ToStatus(violations)),
            "INVALID_ARGUMENT: the request has several faults\n  a.b: is odd\n  c: is even\n  reason: "
            "INVALID_REQUEST");
  EXPECT_EQ(DescribeStatus(absl::OkStatus()), "OK");
}

TEST(WithContext, KeepsCodeAndPayloads) {
  const absl::Status status = WithContext(ErrorWithReason(absl::StatusCode::kAborted, "m", "R"), "layer 3");
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(status.message(), "layer 3: m");
  EXPECT_EQ(ErrorReason(status), "R");
  EXPECT_THAT(WithContext(absl::OkStatus(), "layer 3"), IsOk());
}

absl::StatusOr<int> Doubled(absl::StatusOr<int> input) {
  ABSTRACT_RETURN_IF_ERROR(input.ok() && *input < 0 ? absl::OutOfRangeError("negative") : absl::OkStatus());
  ABSTRACT_ASSIGN_OR_RETURN(const int value, input);
  return 2 * value;
}

TEST(StatusMacros, PassValuesOnAndReturnErrors) {
  EXPECT_EQ(*Doubled(4), 8);
  EXPECT_EQ(Doubled(-1).status(), absl::OutOfRangeError("negative"));
  EXPECT_EQ(Doubled(absl::DataLossError("lost")).status(), absl::DataLossError("lost"));
}

}  // namespace
}  // namespace mechinterp
