#include "services/common/http_server.h"

#include <sys/socket.h>

#include <utility>

#include "httplib.h"
#include "services/common/listen_address.h"
#include "services/common/status_macros.h"

namespace mechinterp {

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

}  // namespace mechinterp
