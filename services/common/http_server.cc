#include "services/common/http_server.h"

#include <microhttpd.h>
#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "services/common/http_connections.h"
#include "services/common/http_guard.h"
#include "services/common/listen_address.h"
#include "services/common/status_macros.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr size_t kConnectionBytes = 32 * 1024;  // for a request's head
constexpr unsigned int kIdleSeconds = 10;
constexpr rlim_t kMostConnections = 512;
constexpr rlim_t kSpareConnections = 32;  // while those that were ended are put away
// Of the system's memory, for an answer that is not read; the system's own limit is megabytes.
constexpr int kSendBytes = 256 * 1024;
// libtorch's thread-local storage lies on every thread's stack.
constexpr size_t kStackBytes = 2 * 1024 * 1024;

// A request while it is read.
struct Exchange {
  std::string body;
};

rlim_t ConnectionLimit() {
  rlimit descriptors{};
  if (getrlimit(RLIMIT_NOFILE, &descriptors) != 0) return kMostConnections;
  return std::clamp(descriptors.rlim_cur / 4, 2 * kSpareConnections, kMostConnections);
}

const char* HeaderOf(MHD_Connection* connection, const char* name) {
  return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

std::string PeerOf(MHD_Connection* connection) {
  const MHD_ConnectionInfo* const info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (info == nullptr || info->client_addr == nullptr) return "";
  const socklen_t length =
      info->client_addr->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  char name[NI_MAXHOST];
  if (getnameinfo(info->client_addr, length, name, sizeof(name), nullptr, 0, NI_NUMERICHOST) != 0) return "";
  return std::string(absl::StripPrefix(name, "::ffff:"));
}

HttpRequest::Lookup LookupIn(MHD_Connection* connection, MHD_ValueKind kind) {
  return [connection, kind](const std::string& name) {
    const char* const value = MHD_lookup_connection_value(connection, kind, name.c_str());
    return std::string(value == nullptr ? "" : value);
  };
}

// What follows a byte of zero would not be seen.
size_t Unescape(void*, MHD_Connection*, char* text) {
  return std::strstr(text, "%00") == nullptr ? MHD_http_unescape(text) : std::strlen(text);
}

MHD_Response* MakeResponse(const std::shared_ptr<const std::string>& body) {
  auto* const kept = new std::shared_ptr<const std::string>(body);
  MHD_Response* const response = MHD_create_response_from_buffer_with_free_callback_cls(
      body->size(), const_cast<char*>(body->data()),
      [](void* pointer) { delete static_cast<std::shared_ptr<const std::string>*>(pointer); }, kept);
  if (response == nullptr) delete kept;
  return response;
}

MHD_Result Queue(MHD_Connection* connection, const HttpResponse& answer) {
  static const auto empty = std::make_shared<const std::string>();
  MHD_Response* const response = MakeResponse(answer.body == nullptr ? empty : answer.body);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response, "Content-Type", answer.content_type.c_str());
  MHD_add_response_header(response, "Cache-Control", "no-store");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  MHD_add_response_header(response, "Accept-Ranges", "none");
  MHD_add_response_header(response, "Connection", "close");
  for (const auto& [name, value] : answer.headers) {
    MHD_add_response_header(response, name.c_str(), value.c_str());
  }
  const MHD_Result result =
      MHD_queue_response(connection, static_cast<unsigned int>(answer.status), response);
  MHD_destroy_response(response);
  return result;
}

enum class Announced { kNothing, kShort, kLong };

Announced BodyOf(MHD_Connection* connection) {
  if (HeaderOf(connection, "Transfer-Encoding") != nullptr) return Announced::kLong;
  const char* const text = HeaderOf(connection, "Content-Length");
  uint64_t length = 0;
  if (text == nullptr || (absl::SimpleAtoi(text, &length) && length == 0)) return Announced::kNothing;
  return length > 0 && length <= kMaxFormBytes ? Announced::kShort : Announced::kLong;
}

}  // namespace

struct HttpServer::Daemon {
  Daemon(HttpHandler answer, HttpServerOptions given, const ConnectionLimits& limits)
      : handler(std::move(answer)), options(std::move(given)), connections(limits) {}
  ~Daemon() {
    if (daemon != nullptr) MHD_stop_daemon(daemon);
  }

  absl::Status Run(int descriptor, unsigned int limit);
  HttpResponse Respond(MHD_Connection* connection, const std::string& path, const std::string& method,
                       const std::string& body) const;
  MHD_Result Answer(MHD_Connection* connection, const std::string& path, const std::string& method,
                    const HttpResponse& response);
  MHD_Result Begin(MHD_Connection* connection, const std::string& path, const std::string& method);
  MHD_Result Continue(MHD_Connection* connection, const std::string& path, const std::string& method,
                      Exchange& exchange, const char* data, size_t* size);

  bool IsForm(const std::string& path) const {
    return std::find(options.forms.begin(), options.forms.end(), path) != options.forms.end();
  }
  HttpResponse WrongMethod(const std::string& path) const {
    HttpResponse response = TextResponse(405, "There is nothing here for this method.\n");
    response.headers.emplace_back("Allow", IsForm(path) ? "GET, HEAD, POST" : "GET, HEAD");
    return response;
  }

  static MHD_Result OnRequest(void* self, MHD_Connection* connection, const char* url, const char* method,
                              const char* version, const char* data, size_t* size, void** state);
  static void OnCompleted(void* self, MHD_Connection* connection, void** state,
                          MHD_RequestTerminationCode code);
  static void OnConnection(void* self, MHD_Connection* connection, void** id,
                           MHD_ConnectionNotificationCode code);

  const HttpHandler handler;
  const HttpServerOptions options;
  HttpNames names;
  int port = 0;
  HttpConnections connections;
  MHD_Daemon* daemon = nullptr;
};

HttpResponse HttpServer::Daemon::Respond(MHD_Connection* connection, const std::string& path,
                                         const std::string& method, const std::string& body) const {
  if (const auto refusal = CheckNames(names, HeaderOf(connection, "Host"), HeaderOf(connection, "Origin"))) {
    return TextResponse(refusal->status, refusal->reason);
  }
  const bool is_get = method == "GET" || method == "HEAD";
  if (!is_get && !(method == "POST" && IsForm(path))) return WrongMethod(path);
  HttpRequest request;
  request.method = is_get ? "GET" : method;
  request.path = path;
  request.query = LookupIn(connection, MHD_GET_ARGUMENT_KIND);
  request.header = LookupIn(connection, MHD_HEADER_KIND);
  request.body = body;
  request.peer = PeerOf(connection);
  return handler(request);
}

MHD_Result HttpServer::Daemon::Answer(MHD_Connection* connection, const std::string& path,
                                      const std::string& method, const HttpResponse& response) {
  const MHD_ConnectionInfo* const info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  if (info != nullptr) connections.Answering(reinterpret_cast<uintptr_t>(info->socket_context));
  spdlog::debug("HTTP {} {} {}", absl::CHexEscape(method), absl::CHexEscape(path), response.status);
  return Queue(connection, response);
}

MHD_Result HttpServer::Daemon::Begin(MHD_Connection* connection, const std::string& path,
                                     const std::string& method) {
  const Announced body = BodyOf(connection);
  if (body == Announced::kNothing)
    return Answer(connection, path, method, Respond(connection, path, method, ""));
  // The library drops the bodies of these alone when the answer comes first.
  const bool answers_first = method == "POST" || method == "PUT";
  if (answers_first && !(method == "POST" && IsForm(path))) {
    return Answer(connection, path, method, Respond(connection, path, method, ""));
  }
  if (body == Announced::kShort) return MHD_YES;
  if (!answers_first) return MHD_NO;
  return Answer(connection, path, method, TextResponse(413, "That is too long.\n"));
}

MHD_Result HttpServer::Daemon::Continue(MHD_Connection* connection, const std::string& path,
                                        const std::string& method, Exchange& exchange, const char* data,
                                        size_t* size) {
  if (*size == 0) return Answer(connection, path, method, Respond(connection, path, method, exchange.body));
  if (exchange.body.size() + *size > kMaxFormBytes) return MHD_NO;
  exchange.body.append(data, *size);
  *size = 0;
  return MHD_YES;
}

MHD_Result HttpServer::Daemon::OnRequest(void* self, MHD_Connection* connection, const char* url,
                                         const char* method, const char* version, const char* data,
                                         size_t* size, void** state) {
  auto& daemon = *static_cast<Daemon*>(self);
  // The library is C: nothing may be thrown through it.
  try {
    if (*state == nullptr) {
      *state = new Exchange;
      return daemon.Begin(connection, url, method);
    }
    return daemon.Continue(connection, url, method, *static_cast<Exchange*>(*state), data, size);
  } catch (const std::exception& error) {
    spdlog::warn("HTTP {}: {}", absl::CHexEscape(url), error.what());
    return MHD_NO;
  }
}

void HttpServer::Daemon::OnCompleted(void* self, MHD_Connection* connection, void** state,
                                     MHD_RequestTerminationCode code) {
  delete static_cast<Exchange*>(*state);
  *state = nullptr;
}

void HttpServer::Daemon::OnConnection(void* self, MHD_Connection* connection, void** id,
                                      MHD_ConnectionNotificationCode code) {
  HttpConnections& connections = static_cast<Daemon*>(self)->connections;
  if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
    // Comes before the descriptor is closed.
    return connections.Closed(reinterpret_cast<uintptr_t>(*id));
  }
  const MHD_ConnectionInfo* const info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  if (info == nullptr) return;
  *id = reinterpret_cast<void*>(static_cast<uintptr_t>(connections.Opened(info->connect_fd)));
}

absl::Status HttpServer::Daemon::Run(int descriptor, unsigned int limit) {
  // Of one thread the library makes no pool.
  const unsigned int pool = options.threads > 1 ? static_cast<unsigned int>(options.threads) : 0;
  daemon = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ITC, 0, nullptr, nullptr, OnRequest, this,
                            MHD_OPTION_LISTEN_SOCKET, descriptor,                  //
                            MHD_OPTION_NOTIFY_COMPLETED, OnCompleted, this,        //
                            MHD_OPTION_NOTIFY_CONNECTION, OnConnection, this,      //
                            MHD_OPTION_UNESCAPE_CALLBACK, Unescape, nullptr,       //
                            MHD_OPTION_CONNECTION_LIMIT, limit,                    //
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes,  //
                            MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds,           //
                            MHD_OPTION_THREAD_STACK_SIZE, kStackBytes,             //
                            MHD_OPTION_THREAD_POOL_SIZE, pool,                     //
                            MHD_OPTION_END);
  // Whether the library closed the descriptor then depends on its version.
  return daemon == nullptr ? absl::UnavailableError("the HTTP server could not start its threads")
                           : absl::OkStatus();
}

HttpServer::HttpServer(std::unique_ptr<Daemon> daemon) : daemon_(std::move(daemon)) {}

HttpServer::~HttpServer() = default;

int HttpServer::port() const { return daemon_->port; }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& listen_address,
                                                              HttpHandler handler,
                                                              HttpServerOptions options) {
  ABSTRACT_ASSIGN_OR_RETURN(const ListeningSocket socket, Listen(listen_address));
  // Its connections inherit this.
  setsockopt(socket.descriptor, SOL_SOCKET, SO_SNDBUF, &kSendBytes, sizeof(kSendBytes));
  const rlim_t limit = ConnectionLimit();
  ConnectionLimits limits;
  limits.most = limit - kSpareConnections;
  limits.request = options.request_time;
  auto daemon = std::make_unique<Daemon>(std::move(handler), std::move(options), limits);
  daemon->port = socket.port;
  for (const std::string& host : daemon->options.allowed_hosts) {
    daemon->names.allowed.push_back(HostWithoutPort(host));
  }
  if (daemon->names.allowed.empty() && socket.is_loopback) {
    daemon->names.allowed = {"localhost", "127.0.0.1", "[::1]"};
  }
  ABSTRACT_RETURN_IF_ERROR(daemon->Run(socket.descriptor, static_cast<unsigned int>(limit)));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(daemon)));
}

HttpResponse TextResponse(int status, std::string text) {
  HttpResponse response;
  response.status = status;
  response.body = std::make_shared<const std::string>(std::move(text));
  return response;
}

}  // namespace mechinterp
