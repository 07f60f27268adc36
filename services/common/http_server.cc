#include "services/common/http_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "httplib.h"
#include "services/common/listen_address.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kMaxBodyBytes = 1024;

// What nobody asks of these servers ends here, before it costs anything.
httplib::Server::HandlerResponse Guard(const httplib::Request& request, httplib::Response& response) {
  // The library's own object, which it made to be changed, and hands out as const.
  const_cast<httplib::Request&>(request).ranges.clear();
  response.set_header("Accept-Ranges", "none");
  if (request.method == "GET" || request.method == "HEAD") return httplib::Server::HandlerResponse::Unhandled;
  response.status = 405;
  response.set_header("Allow", "GET, HEAD");
  return httplib::Server::HandlerResponse::Handled;
}

void SetLimits(httplib::Server& server) {
  server.set_pre_routing_handler(Guard);
  server.set_payload_max_length(kMaxBodyBytes);
  // A body that was left unread is not to be taken for the next request.
  server.set_keep_alive_max_count(1);
}

}  // namespace

HttpServer::HttpServer(std::unique_ptr<httplib::Server> server, int port)
    : server_(std::move(server)), thread_([this] { server_->listen_after_bind(); }), port_(port) {}

HttpServer::~HttpServer() {
  // stop() before the thread has come to listen would be overheard.
  while (!server_->is_running()) std::this_thread::yield();
  server_->stop();
  thread_.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    const std::string& listen_address, const std::function<void(httplib::Server&)>& add_routes) {
  ABSTRACT_ASSIGN_OR_RETURN(const ListenAddress address, ParseListenAddress(listen_address));
  auto server = std::make_unique<httplib::Server>();
  SetLimits(*server);
  add_routes(*server);
  // The default adds SO_REUSEPORT, with which a second server would share the
  // port silently.
  server->set_socket_options([](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  int port = address.port;
  const bool bound = port == 0 ? (port = server->bind_to_any_port(address.host)) > 0
                               : server->bind_to_port(address.host, port);
  if (!bound) return ListenFailure(listen_address);
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(server), port));
}

void SetBody(httplib::Response& response, std::shared_ptr<const std::string> body,
             const std::string& content_type) {
  if (body->empty()) return response.set_content("", content_type);
  const size_t size = body->size();
  response.set_content_provider(
      size, content_type, [body = std::move(body)](size_t offset, size_t length, httplib::DataSink& sink) {
        if (offset >= body->size()) return false;
        return sink.write(body->data() + offset, std::min(length, body->size() - offset));
      });
}

}  // namespace mechinterp
