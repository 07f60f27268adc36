#include "services/common/metrics_server.h"

#include <string>
#include <utility>

#include "httplib.h"
#include "prometheus/text_serializer.h"

namespace mechinterp {

absl::StatusOr<std::unique_ptr<HttpServer>> StartMetricsServer(
    const std::string& listen_address, std::shared_ptr<prometheus::Registry> registry) {
  return HttpServer::Start(listen_address, [registry = std::move(registry)](httplib::Server& server) {
    server.Get("/metrics", [registry](const httplib::Request&, httplib::Response& response) {
      SetBody(response,
              std::make_shared<std::string>(prometheus::TextSerializer().Serialize(registry->Collect())),
              "text/plain; version=0.0.4; charset=utf-8");
    });
  });
}

}  // namespace mechinterp
