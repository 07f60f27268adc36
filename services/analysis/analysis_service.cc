#include "services/analysis/analysis_service.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/analysis/circuit.h"
#include "services/analysis/dashboard.h"
#include "services/analysis/study.h"
#include "services/common/ranking.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kMaxRunIdBytes = 64;
constexpr uint32_t kDefaultRankingLimit = 20;
constexpr uint32_t kDefaultCircuitComponents = 12;
constexpr uint32_t kMaxCircuitComponents = 200;  // A drawing of more helps nobody.
constexpr size_t kHtmlChunkBytes = 1 << 20;

void CheckRunId(const std::string& run_id, Violations& violations) {
  const bool only_allowed = std::all_of(run_id.begin(), run_id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
  });
  if (run_id.empty() || run_id.size() > kMaxRunIdBytes || !only_allowed) {
    violations.Add("run_id", "must be 1 to 64 letters, digits, '.', '-' and '_'");
  }
}

absl::Status CheckedRunId(const std::string& run_id) {
  Violations violations;
  CheckRunId(run_id, violations);
  return ToStatus(violations);
}

// "20250131-235959-1f2e3d4c": sorts by time; two in one second differ.
std::string MakeRunId() {
  absl::BitGen random;
  return absl::StrCat(absl::FormatTime("%Y%m%d-%H%M%S", absl::Now(), absl::UTCTimeZone()), "-",
                      absl::StrFormat("%08x", absl::Uniform<uint32_t>(random)));
}

absl::StatusOr<v1::PatchingResults> PatchingOf(RunStore& store, const std::string& run_id) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(run_id));
  if (!run.study().has_patching()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           absl::StrCat("run \"", run_id, "\" has no patching results"),
                           "NO_PATCHING_RESULTS", {{"run_id", run_id}});
  }
  v1::PatchingResults& patching = *run.mutable_study()->mutable_patching();
  AddMissingRanking(patching);
  return std::move(patching);
}

absl::Status Import(RunStore& store, const v1::ImportRunRequest& request, v1::ImportRunResponse& response) {
  Violations violations;
  const std::string run_id = request.run_id().empty() ? MakeRunId() : request.run_id();
  CheckRunId(run_id, violations);
  if (IsEmpty(request.study())) violations.Add("study", "must have the results of an experiment");
  CheckStudy(request.study(), "study", violations);
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_RETURN_IF_ERROR(store.Import(run_id, request.study()));
  response.set_run_id(run_id);
  return absl::OkStatus();
}

absl::Status Rank(RunStore& store, const v1::GetRankingRequest& request, v1::GetRankingResponse& response) {
  Violations violations;
  CheckRunId(request.run_id(), violations);
  const v1::ComponentKind kind = request.kind();
  if (kind != v1::COMPONENT_KIND_UNSPECIFIED && kind != v1::COMPONENT_KIND_HEAD &&
      kind != v1::COMPONENT_KIND_NEURON_GROUP) {
    violations.Add("kind", "must be HEAD, NEURON_GROUP or unset; others are not ranked");
  }
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::PatchingResults patching, PatchingOf(store, request.run_id()));
  const uint32_t limit = request.limit() == 0 ? kDefaultRankingLimit : request.limit();
  for (const v1::RankedComponent& component : patching.ranking()) {
    if (static_cast<uint32_t>(response.components_size()) >= limit) break;
    if (kind == v1::COMPONENT_KIND_UNSPECIFIED || component.component().kind() == kind) {
      *response.add_components() = component;
    }
  }
  *response.mutable_layers() = patching.layers();
  return absl::OkStatus();
}

absl::Status DrawCircuit(RunStore& store, const v1::GetCircuitRequest& request,
                         v1::GetCircuitResponse& response) {
  Violations violations;
  CheckRunId(request.run_id(), violations);
  if (request.component_count() > kMaxCircuitComponents) {
    violations.Add("component_count", absl::StrCat("must be at most ", kMaxCircuitComponents));
  }
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::PatchingResults patching, PatchingOf(store, request.run_id()));
  const uint32_t count =
      request.component_count() == 0 ? kDefaultCircuitComponents : request.component_count();
  *response.mutable_circuit() = CircuitOf(patching, static_cast<int>(count));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Render(RunStore& store, const std::string& run_id) {
  ABSTRACT_RETURN_IF_ERROR(CheckedRunId(run_id));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetRunResponse run, store.Get(run_id));
  return RenderDashboard(run);
}

}  // namespace

grpc::Status AnalysisServiceImpl::ImportRun(grpc::ServerContext*, const v1::ImportRunRequest* request,
                                            v1::ImportRunResponse* response) {
  response->set_http_address(http_address_);
  return ToGrpcStatus(Import(store_, *request, *response));
}

grpc::Status AnalysisServiceImpl::ListRuns(grpc::ServerContext*, const v1::ListRunsRequest*,
                                           v1::ListRunsResponse* response) {
  const auto runs = store_.List();
  if (runs.ok()) response->mutable_runs()->Assign(runs->begin(), runs->end());
  return ToGrpcStatus(runs.status());
}

grpc::Status AnalysisServiceImpl::GetRun(grpc::ServerContext*, const v1::GetRunRequest* request,
                                         v1::GetRunResponse* response) {
  if (const absl::Status status = CheckedRunId(request->run_id()); !status.ok()) return ToGrpcStatus(status);
  auto run = store_.Get(request->run_id());
  if (run.ok()) *response = *std::move(run);
  return ToGrpcStatus(run.status());
}

grpc::Status AnalysisServiceImpl::DeleteRun(grpc::ServerContext*, const v1::DeleteRunRequest* request,
                                            v1::DeleteRunResponse*) {
  if (const absl::Status status = CheckedRunId(request->run_id()); !status.ok()) return ToGrpcStatus(status);
  return ToGrpcStatus(store_.Delete(request->run_id()));
}

grpc::Status AnalysisServiceImpl::GetRanking(grpc::ServerContext*, const v1::GetRankingRequest* request,
                                             v1::GetRankingResponse* response) {
  return ToGrpcStatus(Rank(store_, *request, *response));
}

grpc::Status AnalysisServiceImpl::GetCircuit(grpc::ServerContext*, const v1::GetCircuitRequest* request,
                                             v1::GetCircuitResponse* response) {
  return ToGrpcStatus(DrawCircuit(store_, *request, *response));
}

grpc::Status AnalysisServiceImpl::RenderDashboard(grpc::ServerContext*,
                                                  const v1::RenderDashboardRequest* request,
                                                  grpc::ServerWriter<v1::RenderDashboardResponse>* writer) {
  const absl::StatusOr<std::string> html = Render(store_, request->run_id());
  if (!html.ok()) return ToGrpcStatus(html.status());
  for (size_t offset = 0; offset < html->size(); offset += kHtmlChunkBytes) {
    v1::RenderDashboardResponse response;
    response.set_html(html->substr(offset, kHtmlChunkBytes));
    if (!writer->Write(response)) return grpc::Status::CANCELLED;  // The client has gone.
  }
  return grpc::Status::OK;
}

}  // namespace mechinterp
