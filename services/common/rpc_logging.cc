#include "services/common/rpc_logging.h"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_replace.h"
#include "grpcpp/server_context.h"
#include "services/common/rpc_outcome.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

using Clock = std::chrono::steady_clock;
using grpc::experimental::InterceptionHookPoints;

bool IsServerFault(grpc::StatusCode code) {
  return code == grpc::StatusCode::INTERNAL || code == grpc::StatusCode::UNKNOWN ||
         code == grpc::StatusCode::DATA_LOSS;
}

// A message may quote what the client sent: a line of the log stays one line.
std::string OneLine(std::string text) {
  text = absl::StrReplaceAll(text, {{"\n  ", "; "}});
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return text;
}

// Lives as long as its RPC.
class RpcLoggingInterceptor : public grpc::experimental::Interceptor {
 public:
  explicit RpcLoggingInterceptor(grpc::experimental::ServerRpcInfo* info)
      : info_(info), method_(MethodName(info->method())), start_(Clock::now()) {}

  ~RpcLoggingInterceptor() override {
    if (!logged_) Log(grpc::Status(grpc::StatusCode::CANCELLED, "ended without a status"));
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    // Both in the handler's thread; a cancellation is told by another one. The context
    // knows its peer and its deadline from here on, and is gone before this is.
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      peer_ = info_->server_context()->peer();
      deadline_ = info_->server_context()->deadline();
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      Log(methods->GetSendStatus());
    }
    methods->Proceed();
  }

 private:
  static std::string MethodName(std::string_view path) {
    if (path.starts_with('/')) path.remove_prefix(1);
    return std::string(path);
  }

  void Log(const grpc::Status& status) {
    logged_ = true;
    const auto level = IsServerFault(status.error_code()) ? spdlog::level::warn : spdlog::level::debug;
    if (!spdlog::default_logger()->should_log(level)) return;
    const std::chrono::duration<double, std::milli> elapsed = Clock::now() - start_;
    const auto now = std::chrono::system_clock::now();
    const grpc::Status outcome(OutcomeOf(status.error_code(), begin_, deadline_, now), status.error_message(),
                               status.error_details());
    spdlog::log(level, "{} from {}: {:.1f} ms, {}", method_, peer_, elapsed.count(),
                OneLine(DescribeStatus(FromGrpcStatus(outcome))));
  }

  grpc::experimental::ServerRpcInfo* const info_;
  const std::string method_;  // "package.Service/Method"
  const Clock::time_point start_;
  const std::chrono::system_clock::time_point begin_ = std::chrono::system_clock::now();
  std::chrono::system_clock::time_point deadline_ = std::chrono::system_clock::time_point::max();
  std::string peer_;  // "ipv4:127.0.0.1:52034"
  bool logged_ = false;
};

class RpcLoggingFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new RpcLoggingInterceptor(info);
  }
};

}  // namespace

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeRpcLoggingFactory() {
  return std::make_unique<RpcLoggingFactory>();
}

}  // namespace mechinterp
