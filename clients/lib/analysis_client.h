#ifndef CLIENTS_LIB_ANALYSIS_CLIENT_H_
#define CLIENTS_LIB_ANALYSIS_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/lib/retry.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"

namespace mechinterp {

// The part of the AnalysisService that the tool uses, with deadlines and
// retries like ModelClient. Thread-safe.
class AnalysisClient {
 public:
  explicit AnalysisClient(std::shared_ptr<v1::AnalysisService::StubInterface> stub,
                          absl::Duration timeout = absl::Minutes(2), RetryPolicy retry = {},
                          std::function<void(absl::Duration)> sleep = absl::SleepFor)
      : stub_(std::move(stub)), timeout_(timeout), retry_(retry), sleep_(std::move(sleep)) {}

  // All runs, of all pages, the latest first.
  absl::StatusOr<v1::ListRunsResponse> ListRuns();
  // A run of any size.
  absl::StatusOr<v1::GetRunResponse> GetRun(const std::string& run_id);
  absl::StatusOr<v1::ImportRunResponse> ImportRun(const v1::ImportRunRequest& request);
  // The page, HTML in UTF-8.
  absl::StatusOr<std::string> RenderDashboard(const std::string& run_id);

 private:
  absl::Status Retry(const std::string& method,
                     const std::function<absl::Status(grpc::ClientContext&)>& attempt);

  std::shared_ptr<v1::AnalysisService::StubInterface> stub_;
  absl::Duration timeout_;
  RetryPolicy retry_;
  std::function<void(absl::Duration)> sleep_;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_ANALYSIS_CLIENT_H_
