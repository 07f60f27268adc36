#ifndef SERVICES_ANALYSIS_PAGE_CACHE_H_
#define SERVICES_ANALYSIS_PAGE_CACHE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "mechinterp/v1/analysis_service.pb.h"
#include "services/analysis/run_store.h"

namespace mechinterp {

// A dashboard as it is sent.
struct DashboardPage {
  std::string html;
  std::string gzip;  // the same, compressed
};

// Renders and compresses a run's dashboard.
absl::StatusOr<DashboardPage> MakePage(v1::GetRunResponse run);

// Keeps the pages that were asked for last, each until its run changes, so that one is
// rendered and compressed once and not for every request. Thread-safe: pages are made
// one at a time.
class PageCache {
 public:
  using Make = std::function<absl::StatusOr<DashboardPage>(v1::GetRunResponse run)>;

  // Keeps `max_bytes` of pages, and the last one asked for whatever its size. `store` must
  // outlive the cache.
  explicit PageCache(RunStore* store, size_t max_bytes = size_t{64} << 20, Make make = MakePage);

  // Errors: the store's (NotFound for unknown runs), and those of `make`.
  absl::StatusOr<std::shared_ptr<const DashboardPage>> Get(const std::string& run_id);

 private:
  struct Entry {
    std::string run_id;
    int64_t update_time_micros;
    std::shared_ptr<const DashboardPage> page;
  };

  // With the lock held: drops pages asked for longer ago that do not fit beside the last.
  void Trim();

  RunStore& store_;
  const size_t max_bytes_;
  const Make make_;
  std::mutex mutex_;
  std::list<Entry> entries_;  // that asked for last first
};

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_PAGE_CACHE_H_
