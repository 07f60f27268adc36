#include "tests/status_matchers.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"

namespace mechinterp {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::Gt;
using testing::HasSubstr;
using testing::Not;
using testing::Pointee;

absl::StatusOr<int> Seven() { return 7; }
absl::StatusOr<int> NoFile() { return absl::NotFoundError("no file seven.txt"); }

// What a failed expectation would print.
template <typename T, typename M>
std::string Explain(const T& value, const M& matcher) {
  testing::StringMatchResultListener listener;
  testing::SafeMatcherCast<const T&>(matcher).MatchAndExplain(value, &listener);
  return listener.str();
}

TEST(IsOk, TakesEveryKindOfStatus) {
  EXPECT_THAT(absl::OkStatus(), IsOk());
  EXPECT_THAT(Seven(), IsOk());
  EXPECT_THAT(grpc::Status::OK, IsOk());
  EXPECT_THAT(absl::InternalError("broken"), Not(IsOk()));
  EXPECT_THAT(NoFile(), Not(IsOk()));
  EXPECT_THAT(grpc::Status(grpc::StatusCode::NOT_FOUND, "nothing"), Not(IsOk()));
}

TEST(IsOk, TellsTheStatus) {
  EXPECT_EQ(Explain(absl::InternalError("broken"), IsOk()), "which is INTERNAL: broken");
  EXPECT_EQ(Explain(NoFile(), IsOk()), "which is NOT_FOUND: no file seven.txt");
  EXPECT_EQ(Explain(grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone"), IsOk()),
            "which is UNAVAILABLE: gone");
}

TEST(IsOk, EndsATestWithTheStatusInItsMessage) {
  // The statement runs in a function of its own, which sees no local variables.
  EXPECT_FATAL_FAILURE(ASSERT_THAT(NoFile(), IsOk()), "NOT_FOUND: no file seven.txt");
}

TEST(IsOkAndHolds, TakesAValueOrAMatcher) {
  EXPECT_THAT(Seven(), IsOkAndHolds(7));
  EXPECT_THAT(Seven(), IsOkAndHolds(Gt(6)));
  EXPECT_THAT(Seven(), Not(IsOkAndHolds(8)));
  EXPECT_THAT(NoFile(), Not(IsOkAndHolds(7)));
  const absl::StatusOr<std::vector<int>> list = std::vector<int>{1, 2};
  EXPECT_THAT(list, IsOkAndHolds(ElementsAre(1, 2)));
  const absl::StatusOr<std::string> text = "abc";
  EXPECT_THAT(text, IsOkAndHolds("abc"));
}

TEST(IsOkAndHolds, TakesValuesThatCannotBeCopied) {
  const absl::StatusOr<std::unique_ptr<int>> pointer = std::make_unique<int>(7);
  EXPECT_THAT(pointer, IsOk());
  EXPECT_THAT(pointer, IsOkAndHolds(Pointee(7)));
}

TEST(IsOkAndHolds, TellsTheStatusOrTheValue) {
  EXPECT_EQ(Explain(NoFile(), IsOkAndHolds(7)), "which is NOT_FOUND: no file seven.txt");
  EXPECT_THAT(Explain(Seven(), IsOkAndHolds(8)), HasSubstr("whose value 7 does not match"));
}

TEST(StatusIs, ComparesCodeAndMessage) {
  EXPECT_THAT(NoFile(), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(NoFile(), StatusIs(absl::StatusCode::kNotFound, HasSubstr("seven.txt")));
  EXPECT_THAT(NoFile(), StatusIs(absl::StatusCode::kNotFound, "no file seven.txt"));
  EXPECT_THAT(NoFile(),
              StatusIs(AnyOf(absl::StatusCode::kNotFound, absl::StatusCode::kInternal), HasSubstr("file")));
  EXPECT_THAT(NoFile(), Not(StatusIs(absl::StatusCode::kInternal)));
  EXPECT_THAT(NoFile(), Not(StatusIs(absl::StatusCode::kNotFound, HasSubstr("eight"))));
  EXPECT_THAT(Seven(), StatusIs(absl::StatusCode::kOk));
  EXPECT_THAT(absl::CancelledError(), StatusIs(absl::StatusCode::kCancelled, ""));
  EXPECT_THAT(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full"),
              StatusIs(absl::StatusCode::kResourceExhausted, "full"));
}

TEST(StatusIs, TellsTheStatus) {
  EXPECT_EQ(Explain(NoFile(), StatusIs(absl::StatusCode::kInternal)),
            "which is NOT_FOUND: no file seven.txt");
}

}  // namespace
}  // namespace mechinterp
