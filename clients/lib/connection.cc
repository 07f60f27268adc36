#include "clients/lib/connection.h"

#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/support/client_interceptor.h"
#include "services/common/keepalive.h"
#include "services/common/status_macros.h"
#include "services/common/text_file.h"
#include "services/common/trace_context.h"

namespace mechinterp {

namespace {

using grpc::experimental::InterceptionHookPoints;

// Puts the token on every call, encrypted or not: gRPC's own credentials of calls are for
// encrypted channels alone.
class BearerInterceptor final : public grpc::experimental::Interceptor {
 public:
  explicit BearerInterceptor(const std::string& token) : token_(token) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      methods->GetSendInitialMetadata()->emplace("authorization", absl::StrCat("Bearer ", token_));
    }
    methods->Proceed();
  }

 private:
  const std::string& token_;  // the factory's, which outlives the calls
};

class BearerFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit BearerFactory(std::string token) : token_(std::move(token)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new BearerInterceptor(token_);
  }

 private:
  const std::string token_;
};

// Of all calls of this process: one trace, made by one span. $TRACEPARENT names them where whoever started
// the process traces it.
const std::string& Traceparent() {
  static const std::string& text = *new std::string([] {
    const char* const given = std::getenv("TRACEPARENT");
    return (given == nullptr ? std::nullopt : ParseTraceparent(given)).value_or(NewTrace()).ToTraceparent();
  }());
  return text;
}

// Says with every call which trace it belongs to, unless the call does so itself.
class TraceInterceptor final : public grpc::experimental::Interceptor {
 public:
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      auto& metadata = *methods->GetSendInitialMetadata();
      if (metadata.find("traceparent") == metadata.end()) metadata.emplace("traceparent", Traceparent());
    }
    methods->Proceed();
  }
};

class TraceFactory final : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new TraceInterceptor();
  }
};

}  // namespace

absl::StatusOr<ConnectionCredentials> ReadCredentials(const ConnectionOptions& options) {
  ConnectionCredentials credentials;
  credentials.insecure = options.insecure;
  credentials.is_encrypted = options.tls.enabled;
  ABSTRACT_ASSIGN_OR_RETURN(credentials.channel, MakeChannelCredentials(options.tls));
  if (options.token_file.empty()) return credentials;
  const absl::StatusOr<std::string> text = ReadTextFile(options.token_file, /*max_bytes=*/4096);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--token-file: ", text.status().message()));
  }
  credentials.token = std::string(absl::StripAsciiWhitespace(*text));
  // What is no word would end the header, or be another one.
  for (const char c : credentials.token) {
    if (c <= ' ' || c > '~') credentials.token.clear();
  }
  if (credentials.token.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--token-file: ", options.token_file, " holds no token"));
  }
  return credentials;
}

absl::Status MaySend(const ConnectionCredentials& credentials, const std::string& address) {
  if (credentials.token.empty() || credentials.is_encrypted || credentials.insecure || IsLoopback(address)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("the token would travel in the clear to ", address,
                                                 "; give --tls or --tls-ca, or --insecure"));
}

std::shared_ptr<grpc::Channel> ConnectTo(const std::string& address,
                                         const ConnectionCredentials& credentials) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // Whatever its name says: how long an attempt to connect may take.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10'000);
  PingServer(arguments);
  if (IsLoopback(address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto channel_credentials =
      credentials.channel == nullptr ? grpc::InsecureChannelCredentials() : credentials.channel;
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<TraceFactory>());
  if (!credentials.token.empty()) interceptors.push_back(std::make_unique<BearerFactory>(credentials.token));
  return grpc::experimental::CreateCustomChannelWithInterceptors(address, channel_credentials, arguments,
                                                                 std::move(interceptors));
}

bool RespondsWithin(grpc::Channel& channel, absl::Duration patience) {
  const auto deadline = absl::ToChronoTime(absl::Now() + patience);
  while (true) {
    const grpc_connectivity_state state = channel.GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) return true;
    if (!channel.WaitForStateChange(state, deadline)) return false;
  }
}

}  // namespace mechinterp
