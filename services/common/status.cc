#include "services/common/status.h"

#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"
#include "services/common/text.h"

namespace mechinterp {
namespace {

// Abseil's codes and gRPC's are the same numbers, so that a cast converts them.
template <absl::StatusCode kAbsl, grpc::StatusCode kGrpc>
constexpr bool kSame = static_cast<int>(kAbsl) == static_cast<int>(kGrpc);
static_assert(kSame<absl::StatusCode::kOk, grpc::StatusCode::OK>);
static_assert(kSame<absl::StatusCode::kCancelled, grpc::StatusCode::CANCELLED>);
static_assert(kSame<absl::StatusCode::kUnknown, grpc::StatusCode::UNKNOWN>);
static_assert(kSame<absl::StatusCode::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT>);
static_assert(kSame<absl::StatusCode::kDeadlineExceeded, grpc::StatusCode::DEADLINE_EXCEEDED>);
static_assert(kSame<absl::StatusCode::kNotFound, grpc::StatusCode::NOT_FOUND>);
static_assert(kSame<absl::StatusCode::kAlreadyExists, grpc::StatusCode::ALREADY_EXISTS>);
static_assert(kSame<absl::StatusCode::kPermissionDenied, grpc::StatusCode::PERMISSION_DENIED>);
static_assert(kSame<absl::StatusCode::kResourceExhausted, grpc::StatusCode::RESOURCE_EXHAUSTED>);
static_assert(kSame<absl::StatusCode::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION>);
static_assert(kSame<absl::StatusCode::kAborted, grpc::StatusCode::ABORTED>);
static_assert(kSame<absl::StatusCode::kOutOfRange, grpc::StatusCode::OUT_OF_RANGE>);
static_assert(kSame<absl::StatusCode::kUnimplemented, grpc::StatusCode::UNIMPLEMENTED>);
static_assert(kSame<absl::StatusCode::kInternal, grpc::StatusCode::INTERNAL>);
static_assert(kSame<absl::StatusCode::kUnavailable, grpc::StatusCode::UNAVAILABLE>);
static_assert(kSame<absl::StatusCode::kDataLoss, grpc::StatusCode::DATA_LOSS>);
static_assert(kSame<absl::StatusCode::kUnauthenticated, grpc::StatusCode::UNAUTHENTICATED>);

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/";

// gRPC clients accept 8 KiB of trailers by default, and fail the call with a
// misleading RESOURCE_EXHAUSTED above. The message travels twice (once in
// base64), violations once; these bounds keep the sum below.
constexpr size_t kMaxMessageBytes = 1600;
constexpr size_t kMaxViolationBytes = 2400;
constexpr size_t kMaxFieldBytes = 200;
constexpr size_t kMaxDescriptionBytes = 400;
constexpr size_t kMaxViolationsInMessage = 8;

template <typename Message>
std::string TypeUrl() {
  return absl::StrCat(kTypeUrlPrefix, Message::descriptor()->full_name());
}

template <typename Message>
void AddDetail(absl::Status& status, const Message& detail) {
  status.SetPayload(TypeUrl<Message>(), absl::Cord(detail.SerializeAsString()));
}

template <typename Message>
std::optional<Message> Detail(const absl::Status& status) {
  const auto payload = status.GetPayload(TypeUrl<Message>());
  Message message;
  if (!payload.has_value() || !message.ParseFromString(std::string(*payload))) return std::nullopt;
  return message;
}

// Debian 12 builds Abseil for C++14, where its string_view is a type of its own.
absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

google::rpc::ErrorInfo MakeErrorInfo(std::string_view reason,
                                     const std::map<std::string, std::string>& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : metadata)
    (*info.mutable_metadata())[key] = Shortened(value, kMaxDescriptionBytes);
  return info;
}

}  // namespace

absl::Status ErrorWithReason(absl::StatusCode code, std::string_view message, std::string_view reason,
                             const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, ToAbsl(message));
  AddDetail(status, MakeErrorInfo(reason, metadata));
  return status;
}

absl::Status TryAgainLater(std::string_view message, std::string_view reason, absl::Duration delay) {
  absl::Status status = ErrorWithReason(absl::StatusCode::kResourceExhausted, message, reason);
  google::rpc::RetryInfo info;
  const int64_t nanoseconds = absl::ToInt64Nanoseconds(delay);
  info.mutable_retry_delay()->set_seconds(nanoseconds / 1'000'000'000);
  info.mutable_retry_delay()->set_nanos(static_cast<int>(nanoseconds % 1'000'000'000));
  AddDetail(status, info);
  return status;
}

absl::Status ToStatus(const Violations& violations) {
  if (violations.empty()) return absl::OkStatus();
  google::rpc::BadRequest bad_request;
  std::string message;
  size_t bytes = 0;
  size_t reported = 0;
  for (const auto& [whole_field, whole_description] : violations.list()) {
    const std::string field = Shortened(whole_field, kMaxFieldBytes);
    const std::string description = Shortened(whole_description, kMaxDescriptionBytes);
    bytes += field.size() + description.size();
    if (bytes > kMaxViolationBytes && reported > 0) break;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
    if (reported < kMaxViolationsInMessage) {
      absl::StrAppend(&message, message.empty() ? "" : "; ", field, ": ", description);
    }
    ++reported;
  }
  if (const size_t left = violations.count() - std::min(reported, kMaxViolationsInMessage); left > 0) {
    absl::StrAppend(&message, "; and ", left, " more");
  }
  absl::Status status = absl::InvalidArgumentError(message);
  AddDetail(status, bad_request);
  AddDetail(status, MakeErrorInfo("INVALID_REQUEST", {}));
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(status.raw_code());
  details.set_message(Shortened({status.message().data(), status.message().size()}, kMaxMessageBytes));
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    google::protobuf::Any* detail = details.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(payload));
  });
  // Abseil shuffles payloads on purpose; the wire stays reproducible.
  std::sort(details.mutable_details()->begin(), details.mutable_details()->end(),
            [](const auto& a, const auto& b) { return a.type_url() < b.type_url(); });
  const std::string bytes = details.details_size() == 0 ? "" : details.SerializeAsString();
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(), bytes);
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : details.details()) {
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

std::string CodeName(grpc::StatusCode code) {
  const std::string name = absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
  return name.empty() ? "UNKNOWN" : name;
}

std::string ErrorReason(const absl::Status& status) {
  const auto info = Detail<google::rpc::ErrorInfo>(status);
  return info.has_value() ? info->reason() : "";
}

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto info = Detail<google::rpc::RetryInfo>(status);
  if (!info.has_value()) return std::nullopt;
  return absl::Seconds(info->retry_delay().seconds()) + absl::Nanoseconds(info->retry_delay().nanos());
}

namespace {

// What WithContext put before a message; for people here, never sent.
constexpr char kContextPayload[] = "mechinterp.context";

std::string ContextOf(const absl::Status& status, const std::string& otherwise) {
  const auto context = status.GetPayload(kContextPayload);
  return context.has_value() ? std::string(*context) : otherwise;
}

}  // namespace

std::string DescribeStatus(const absl::Status& status) {
  if (status.ok()) return "OK";
  // The message of a status by Violations says what the fields' own lines would;
  // several of them read better line by line.
  const auto bad_request = Detail<google::rpc::BadRequest>(status);
  const bool line_by_line = bad_request.has_value() && (ErrorReason(status) != "INVALID_REQUEST" ||
                                                        bad_request->field_violations_size() > 1);
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  line_by_line && ErrorReason(status) == "INVALID_REQUEST"
                                      ? absl::StrCat(ContextOf(status, "the request"), " has several faults")
                                      : std::string(status.message()));
  if (line_by_line) {
    for (const auto& violation : bad_request->field_violations()) {
      absl::StrAppend(&text, "\n  ", violation.field(), ": ", violation.description());
    }
  }
  if (const std::string reason = ErrorReason(status); !reason.empty())
    absl::StrAppend(&text, "\n  reason: ", reason);
  if (const auto delay = RetryDelay(status); delay.has_value()) {
    absl::StrAppend(&text, "\n  retry in: ", absl::FormatDuration(*delay));
  }
  return text;
}

absl::Status WithContext(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  absl::Status result(status.code(), absl::StrCat(ToAbsl(context), ": ", status.message()));
  status.ForEachPayload(
      [&](absl::string_view type_url, const absl::Cord& payload) { result.SetPayload(type_url, payload); });
  const std::string inner = ContextOf(status, "");
  result.SetPayload(kContextPayload, absl::Cord(inner.empty() ? absl::StrCat(ToAbsl(context))
                                                              : absl::StrCat(ToAbsl(context), ": ", inner)));
  return result;
}

}  // namespace mechinterp
