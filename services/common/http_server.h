#ifndef SERVICES_COMMON_HTTP_SERVER_H_
#define SERVICES_COMMON_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace mechinterp {

struct HttpRequest {
  // The value of this name; empty where there is none.
  using Lookup = std::function<std::string(const std::string& name)>;

  std::string method;  // GET, or POST to one of the server's forms
  std::string path;    // with its escapes undone, without the query
  Lookup query;
  Lookup header;     // whose names have no case
  std::string body;  // of a form
  std::string peer;  // the client's address, without its port
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::vector<std::pair<std::string, std::string>> headers;
  std::shared_ptr<const std::string> body;  // sent as it is
};

HttpResponse TextResponse(int status, std::string text);

// Called from several threads at once.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

struct HttpServerOptions {
  int threads = 1;  // that answer; a slow answer holds one of them
  // Names and numbers that a request may ask for, without ports. Empty: on a loopback address the
  // names of loopback, elsewhere any.
  std::vector<std::string> allowed_hosts;
  // Paths that take a POST of at most kMaxFormBytes.
  std::vector<std::string> forms;
  absl::Duration request_time = absl::Seconds(20);  // from a connection's begin to the end of its request
};

inline constexpr size_t kMaxFormBytes = 4096;

// A running HTTP server, for metrics and dashboards. Runs its own threads until it is destroyed, which
// takes no longer than the answers that are being made. Thread-safe.
//
// It answers GET and HEAD, with one request to a connection, and reads no bodies but forms' (what else
// brings a long body by a method other than POST and PUT is cut off without an answer). A request's Range
// is passed over, as HTTP allows. Clients that are slow, or many, or endless cost a bounded amount of
// memory, no thread, and only each other: the connection that is open for longest makes room for the next.
// A page of another origin, or of another name that was made to lead here, is refused.
class HttpServer {
 public:
  // `listen_address` like "127.0.0.1:8080"; port 0 lets the system choose. Errors: InvalidArgument
  // (address), Unavailable (naming the address and why).
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& listen_address,
                                                           HttpHandler handler,
                                                           HttpServerOptions options = {});
  ~HttpServer();

  int port() const;

 private:
  struct Daemon;

  explicit HttpServer(std::unique_ptr<Daemon> daemon);

  std::unique_ptr<Daemon> daemon_;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HTTP_SERVER_H_
