#include "services/common/metrics_server.h"

#include <string>
#include <utility>

#include "prometheus/text_serializer.h"

namespace mechinterp {

absl::StatusOr<std::unique_ptr<HttpServer>> StartMetricsServer(const std::string& listen_address,
                                                               std::shared_ptr<prometheus::Registry> registry,
                                                               std::function<void()> on_scrape) {
  return HttpServer::Start(listen_address, [registry = std::move(registry),
                                            on_scrape = std::move(on_scrape)](const HttpRequest& request) {
    if (request.path != "/metrics") return TextResponse(404, "Metrics are at /metrics.\n");
    if (on_scrape != nullptr) on_scrape();
    HttpResponse response = TextResponse(200, prometheus::TextSerializer().Serialize(registry->Collect()));
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    return response;
  });
}

}  // namespace mechinterp
