#include "tests/fuzz/service_calls.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "services/common/paging.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/rpc/call.h"
#include "tests/fuzz/fuzz_target.h"

namespace mechinterp::fuzz {
namespace {

constexpr size_t kMaxTrailerBytes = 8 << 10;  // as gRPC's clients take
constexpr size_t kMaxCalls = 8;
constexpr size_t kMaxAnswerBytes = size_t{64} << 20;

// Keeps what is written.
class RecordedCall final : public Call {
 public:
  explicit RecordedCall(Answer& answer) : answer_(answer) { caller_.name = "fuzz"; }

  const Caller& caller() const override { return caller_; }
  absl::Time arrival() const override { return arrival_; }
  Priority priority() const override { return Priority::kInteractive; }
  bool IsCancelled() const override { return bytes_ > kMaxAnswerBytes; }
  absl::Status cancellation() const override {
    return IsCancelled() ? absl::CancelledError("enough was read") : absl::OkStatus();
  }
  absl::Status Write(grpc::ByteBuffer message) override {
    std::vector<grpc::Slice> slices;
    Require(message.Dump(&slices).ok(), "an answer has bytes");
    std::string& bytes = answer_.messages.emplace_back();
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    Require(bytes.size() <= kMaxMessageBytes, "no message is longer than clients take");
    bytes_ += bytes.size();
    return cancellation();
  }
  void SendRest(Source next) override {
    while (auto message = next()) {
      if (!Write(*std::move(message)).ok()) return;
    }
  }

 private:
  Caller caller_;
  const absl::Time arrival_ = absl::Now();
  Answer& answer_;
  size_t bytes_ = 0;
};

bool IsDocumented(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

struct Request {
  const Method* method;
  std::string bytes;
};

std::unique_ptr<google::protobuf::Message> NewRequest(const Method& method) {
  const auto* const prototype =
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(method.descriptor->input_type());
  return std::unique_ptr<google::protobuf::Message>(prototype->New());
}

std::optional<Request> RequestOfLine(const std::vector<Method>& methods, std::string_view line) {
  const auto [name, json] = CutAt(line, ' ');
  for (const Method& method : methods) {
    if (method.descriptor->name() != name) continue;
    const auto request = NewRequest(method);
    if (!MessageFromJson(std::string(json), request.get()).ok()) return std::nullopt;
    return Request{&method, request->SerializeAsString()};
  }
  return std::nullopt;
}

std::vector<Request> Requests(const std::vector<Method>& methods, std::string_view input) {
  std::vector<Request> requests;
  if (!input.empty() && static_cast<unsigned char>(input[0]) < 32) {
    const Method& method = methods[static_cast<unsigned char>(input[0]) % methods.size()];
    requests.push_back({&method, std::string(input.substr(1))});
    return requests;
  }
  while (!input.empty() && requests.size() < kMaxCalls) {
    const auto [line, rest] = CutAt(input, '\n');
    input = rest;
    if (auto request = RequestOfLine(methods, line)) requests.push_back(*std::move(request));
  }
  return requests;
}

void CheckRefusal(const absl::Status& status) {
  Require(IsDocumented(status.code()), "a refusal's code is documented: " + status.ToString());
  const grpc::Status sent = ToGrpcStatus(status);
  Require(sent.error_message().size() + sent.error_details().size() <= kMaxTrailerBytes,
          "a refusal fits into gRPC's trailers");
  Require(IsUtf8(sent.error_message()), "a refusal is UTF-8");
  Require(FromGrpcStatus(sent).code() == status.code(), "a refusal crosses gRPC");
}

}  // namespace

void RunCalls(const std::vector<Method>& methods, std::string_view input,
              const std::function<void(const google::protobuf::Message&, const Answer&)>& check) {
  for (const Request& request : Requests(methods, input)) {
    Answer answer;
    answer.method = request.method->descriptor->name();
    RecordedCall call(answer);
    const grpc::Slice slice(request.bytes);
    grpc::ByteBuffer bytes(&slice, 1);
    answer.status = request.method->handle(call, bytes);
    CheckRefusal(answer.status);
    const auto message = NewRequest(*request.method);
    if (!message->ParseFromString(request.bytes)) {
      Require(absl::IsInvalidArgument(answer.status), "what is no message is refused");
      continue;
    }
    check(*message, answer);
  }
}

}  // namespace mechinterp::fuzz
