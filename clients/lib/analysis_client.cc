#include "clients/lib/analysis_client.h"

#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::Status AnalysisClient::Retry(const std::string& method,
                                   const std::function<absl::Status(grpc::ClientContext&)>& attempt) {
  RetryLoop loop(retry_, sleep_);
  absl::Status status;
  do {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
    status = attempt(context);
  } while (loop.ShouldRetry(status));
  return status.ok() ? status : WithContext(status, method);
}

absl::StatusOr<v1::ImportRunResponse> AnalysisClient::ImportRun(const v1::ImportRunRequest& request) {
  v1::ImportRunResponse response;
  ABSTRACT_RETURN_IF_ERROR(Retry("ImportRun", [&](grpc::ClientContext& context) {
    return FromGrpcStatus(stub_->ImportRun(&context, request, &response));
  }));
  return response;
}

absl::StatusOr<std::string> AnalysisClient::RenderDashboard(const std::string& run_id) {
  v1::RenderDashboardRequest request;
  request.set_run_id(run_id);
  std::string html;
  ABSTRACT_RETURN_IF_ERROR(Retry("RenderDashboard", [&](grpc::ClientContext& context) {
    html.clear();
    const auto reader = stub_->RenderDashboard(&context, request);
    v1::RenderDashboardResponse response;
    while (reader->Read(&response)) html += response.html();
    return FromGrpcStatus(reader->Finish());
  }));
  return html;
}

}  // namespace mechinterp
