#ifndef TESTS_STATUS_MATCHERS_H_
#define TESTS_STATUS_MATCHERS_H_

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"

namespace mechinterp {

// Matchers for absl::Status, absl::StatusOr<T> and grpc::Status. A failure prints the status,
// where EXPECT_TRUE(result.ok()) prints "false".
//
//   ASSERT_THAT(model, IsOk());
//   EXPECT_THAT(ParsePort("80"), IsOkAndHolds(80));
//   EXPECT_THAT(ParsePort("x"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("port")));
//
// They are in the project's namespace, not in a `testing` of its own: that would hide
// GoogleTest's from the tests.

namespace status_matchers_internal {

// gRPC's codes have the same numbers as Abseil's.
template <typename T>
absl::Status StatusOf(const T& value) {
  if constexpr (requires { value.status(); }) {
    return value.status();
  } else if constexpr (requires { value.error_code(); }) {
    return absl::Status(static_cast<absl::StatusCode>(value.error_code()), value.error_message());
  } else {
    return value;
  }
}

class IsOkMatcher {
 public:
  template <typename T>
  bool MatchAndExplain(const T& value, ::testing::MatchResultListener* listener) const {
    if (value.ok()) return true;
    *listener << "which is " << StatusOf(value);
    return false;
  }
  void DescribeTo(std::ostream* out) const { *out << "is OK"; }
  void DescribeNegationTo(std::ostream* out) const { *out << "is not OK"; }
};

class StatusIsMatcher {
 public:
  StatusIsMatcher(::testing::Matcher<absl::StatusCode> code, ::testing::Matcher<const std::string&> message)
      : code_(std::move(code)), message_(std::move(message)) {}

  template <typename T>
  bool MatchAndExplain(const T& value, ::testing::MatchResultListener* listener) const {
    const absl::Status status = StatusOf(value);
    *listener << "which is " << status;
    return code_.Matches(status.code()) && message_.Matches(std::string(status.message()));
  }
  void DescribeTo(std::ostream* out) const {
    *out << "has a code that ";
    code_.DescribeTo(out);
    *out << " and a message that ";
    message_.DescribeTo(out);
  }
  void DescribeNegationTo(std::ostream* out) const {
    *out << "not (";
    DescribeTo(out);
    *out << ")";
  }

 private:
  ::testing::Matcher<absl::StatusCode> code_;
  ::testing::Matcher<const std::string&> message_;
};

template <typename StatusOr>
class IsOkAndHoldsImpl : public ::testing::MatcherInterface<StatusOr> {
 public:
  using Value = typename std::remove_cvref_t<StatusOr>::value_type;

  template <typename ValueMatcher>
  explicit IsOkAndHoldsImpl(const ValueMatcher& value)
      : value_(::testing::SafeMatcherCast<const Value&>(value)) {}

  bool MatchAndExplain(StatusOr result, ::testing::MatchResultListener* listener) const override {
    if (!result.ok()) {
      *listener << "which is " << result.status();
      return false;
    }
    ::testing::StringMatchResultListener inner;
    const bool matches = value_.MatchAndExplain(*result, &inner);
    *listener << "whose value " << ::testing::PrintToString(*result)
              << (matches ? " matches" : " does not match");
    if (!inner.str().empty()) *listener << ", " << inner.str();
    return matches;
  }
  void DescribeTo(std::ostream* out) const override {
    *out << "is OK and has a value that ";
    value_.DescribeTo(out);
  }
  void DescribeNegationTo(std::ostream* out) const override {
    *out << "is not OK, or has a value that ";
    value_.DescribeNegationTo(out);
  }

 private:
  const ::testing::Matcher<const Value&> value_;
};

template <typename ValueMatcher>
class IsOkAndHoldsMatcher {
 public:
  explicit IsOkAndHoldsMatcher(ValueMatcher value) : value_(std::move(value)) {}

  template <typename StatusOr>
  operator ::testing::Matcher<StatusOr>() const {  // NOLINT(google-explicit-constructor)
    return ::testing::Matcher<StatusOr>(new IsOkAndHoldsImpl<StatusOr>(value_));
  }

 private:
  const ValueMatcher value_;
};

}  // namespace status_matchers_internal

inline ::testing::PolymorphicMatcher<status_matchers_internal::IsOkMatcher> IsOk() {
  return ::testing::MakePolymorphicMatcher(status_matchers_internal::IsOkMatcher());
}

// A StatusOr that has a value, which `value` (a matcher, or the value expected) matches.
template <typename ValueMatcher>
status_matchers_internal::IsOkAndHoldsMatcher<std::decay_t<ValueMatcher>> IsOkAndHolds(ValueMatcher&& value) {
  return status_matchers_internal::IsOkAndHoldsMatcher<std::decay_t<ValueMatcher>>(
      std::forward<ValueMatcher>(value));
}

// A code (or a matcher for it), and a message, by default any.
inline ::testing::PolymorphicMatcher<status_matchers_internal::StatusIsMatcher> StatusIs(
    ::testing::Matcher<absl::StatusCode> code,
    ::testing::Matcher<const std::string&> message = ::testing::_) {
  return ::testing::MakePolymorphicMatcher(
      status_matchers_internal::StatusIsMatcher(std::move(code), std::move(message)));
}

}  // namespace mechinterp

#endif  // TESTS_STATUS_MATCHERS_H_
