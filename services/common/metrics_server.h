#ifndef SERVICES_COMMON_METRICS_SERVER_H_
#define SERVICES_COMMON_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/registry.h"
#include "services/common/http_server.h"

namespace mechinterp {

// Serves a registry's metrics over HTTP at /metrics, in Prometheus's text
// format. prometheus-cpp's own Exposer cannot run in a process that links
// libtorch: civetweb gives its threads 100 KiB of stack, less than libtorch's
// thread-local storage takes, and they fail to start. `on_scrape` (may be null) is called before each answer
// is made, from the server's threads. Errors as HttpServer's.
absl::StatusOr<std::unique_ptr<HttpServer>> StartMetricsServer(const std::string& listen_address,
                                                               std::shared_ptr<prometheus::Registry> registry,
                                                               std::function<void()> on_scrape = nullptr);

}  // namespace mechinterp

#endif  // SERVICES_COMMON_METRICS_SERVER_H_
