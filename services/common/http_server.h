#ifndef SERVICES_COMMON_HTTP_SERVER_H_
#define SERVICES_COMMON_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace httplib {
class Server;
struct Response;
}  // namespace httplib

namespace mechinterp {

// A running HTTP server, for metrics and dashboards. Runs its own threads until
// it is destroyed. Thread-safe.
//
// It answers GET and HEAD, with one request to a connection, and reads no bodies. A
// request's Range is passed over, as HTTP allows: the library would put together as
// many copies as there are ranges.
class HttpServer {
 public:
  // `listen_address` like "127.0.0.1:8080"; port 0 lets the system choose.
  // `add_routes` sets the handlers, which must be thread-safe. Errors:
  // InvalidArgument (address), Unavailable (naming the address and why).
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& listen_address, const std::function<void(httplib::Server&)>& add_routes);
  ~HttpServer();

  int port() const { return port_; }

 private:
  HttpServer(std::unique_ptr<httplib::Server> server, int port);

  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  int port_;
};

// Sends `body` as it is. What the library is given by set_content it compresses anew
// for every request.
void SetBody(httplib::Response& response, std::shared_ptr<const std::string> body,
             const std::string& content_type);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_HTTP_SERVER_H_
