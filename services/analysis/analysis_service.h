#ifndef SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_
#define SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_

#include <string>
#include <utility>

#include "grpcpp/grpcpp.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "services/analysis/run_store.h"

namespace mechinterp {

// AnalysisService over a RunStore. Handlers check the request, ask the store and
// the pure functions beside it, and translate statuses. Thread-safe.
class AnalysisServiceImpl final : public v1::AnalysisService::Service {
 public:
  // `store` must outlive the service. `http_address`: as in ImportRunResponse.
  explicit AnalysisServiceImpl(RunStore* store, std::string http_address = "")
      : store_(*store), http_address_(std::move(http_address)) {}

  grpc::Status ImportRun(grpc::ServerContext* context, const v1::ImportRunRequest* request,
                         v1::ImportRunResponse* response) override;
  grpc::Status ListRuns(grpc::ServerContext* context, const v1::ListRunsRequest* request,
                        v1::ListRunsResponse* response) override;
  grpc::Status GetRun(grpc::ServerContext* context, const v1::GetRunRequest* request,
                      v1::GetRunResponse* response) override;
  grpc::Status ExportRun(grpc::ServerContext* context, const v1::ExportRunRequest* request,
                         grpc::ServerWriter<v1::ExportRunResponse>* writer) override;
  grpc::Status DeleteRun(grpc::ServerContext* context, const v1::DeleteRunRequest* request,
                         v1::DeleteRunResponse* response) override;
  grpc::Status GetRanking(grpc::ServerContext* context, const v1::GetRankingRequest* request,
                          v1::GetRankingResponse* response) override;
  grpc::Status GetCircuit(grpc::ServerContext* context, const v1::GetCircuitRequest* request,
                          v1::GetCircuitResponse* response) override;
  grpc::Status RenderDashboard(grpc::ServerContext* context, const v1::RenderDashboardRequest* request,
                               grpc::ServerWriter<v1::RenderDashboardResponse>* writer) override;

 private:
  RunStore& store_;
  const std::string http_address_;
};

}  // namespace mechinterp

#endif  // SERVICES_ANALYSIS_ANALYSIS_SERVICE_H_
