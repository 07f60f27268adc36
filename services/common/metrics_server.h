#ifndef SERVICES_COMMON_METRICS_SERVER_H_
#define SERVICES_COMMON_METRICS_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/exposer.h"
#include "prometheus/registry.h"

namespace mechinterp {

// Serves a registry's metrics over HTTP at /metrics. Thread-safe.
class MetricsServer {
 public:
  // `listen_address` like "127.0.0.1:9464"; port 0 lets the system choose.
  // Errors: Unavailable, naming the address.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen_address,
                                                              std::shared_ptr<prometheus::Registry> registry);
  int port() const { return port_; }

 private:
  MetricsServer(std::unique_ptr<prometheus::Exposer> exposer, std::shared_ptr<prometheus::Registry> registry,
                int port);
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::shared_ptr<prometheus::Registry> registry_;
  int port_;
};

}  // namespace mechinterp

#endif  // SERVICES_COMMON_METRICS_SERVER_H_
