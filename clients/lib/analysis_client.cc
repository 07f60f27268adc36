#include "clients/lib/analysis_client.h"

#include "clients/lib/pages.h"
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

absl::StatusOr<v1::ListRunsResponse> AnalysisClient::ListRuns() {
  const auto ask = [this](const v1::ListRunsRequest& request) -> absl::StatusOr<v1::ListRunsResponse> {
    v1::ListRunsResponse page;
    ABSTRACT_RETURN_IF_ERROR(Retry("ListRuns", [&](grpc::ClientContext& context) {
      return FromGrpcStatus(stub_->ListRuns(&context, request, &page));
    }));
    return page;
  };
  return AllPages<v1::ListRunsResponse>(v1::ListRunsRequest(), ask);
}

absl::StatusOr<v1::GetRunResponse> AnalysisClient::GetRun(const std::string& run_id) {
  v1::ExportRunRequest request;
  request.set_run_id(run_id);
  v1::GetRunResponse run;
  std::string study;
  ABSTRACT_RETURN_IF_ERROR(Retry("ExportRun", [&](grpc::ClientContext& context) {
    study.clear();
    const auto reader = stub_->ExportRun(&context, request);
    v1::ExportRunResponse response;
    while (reader->Read(&response)) {
      if (response.has_description()) *run.mutable_description() = response.description();
      study += response.study_chunk();
    }
    return FromGrpcStatus(reader->Finish());
  }));
  if (run.mutable_study()->ParseFromString(study)) return run;
  return absl::DataLossError("ExportRun: the chunks are no study");
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
