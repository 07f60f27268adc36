#include "services/analysis/analysis_service.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
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
#include "services/common/experiments.h"
#include "services/common/paging.h"
#include "services/common/ranking.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kMaxRunIdBytes = 64;
constexpr uint32_t kDefaultRankingLimit = 20;
constexpr uint32_t kDefaultCircuitComponents = 12;
constexpr uint32_t kDefaultCircuitEdges = 24;
constexpr uint32_t kMaxCircuitComponents = 200;  // A drawing of more helps nobody.
constexpr uint32_t kMaxCircuitEdges = 400;
constexpr int kMaxRunsOnPage = 10'000;

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

absl::Status NoResults(const std::string& run_id, const char* experiment, std::string_view reason) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat("run \"", run_id, "\" has no ", experiment, " results"), reason,
                         {{"run_id", run_id}});
}

absl::StatusOr<v1::PatchingResults> PatchingOf(RunStore& store, const std::string& run_id) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(run_id));
  if (!run.study().has_patching()) return NoResults(run_id, "patching", "NO_PATCHING_RESULTS");
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

absl::Status ListPage(RunStore& store, const v1::ListRunsRequest& request, v1::ListRunsResponse& response) {
  Violations violations;
  Page page(request.page_size(), violations.At("page_size"));
  const auto last = ReadPageToken(request.page_token(), violations.At("page_token"));
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const std::vector<v1::RunDescription> runs, store.List(kMaxRunsOnPage + 1, last));
  for (const v1::RunDescription& run : runs) {
    if (response.runs_size() == kMaxRunsOnPage || !page.Take(run)) {
      response.set_next_page_token(PageToken(PositionOf(*response.runs().rbegin())));
      break;
    }
    *response.add_runs() = run;
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::GetRunResponse> Get(RunStore& store, const std::string& run_id) {
  ABSTRACT_RETURN_IF_ERROR(CheckedRunId(run_id));
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(run_id));
  if (run.ByteSizeLong() <= kMaxMessageBytes) return run;
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat("run \"", run_id, "\" takes ", run.ByteSizeLong(), " bytes, a message ",
                                      kMaxMessageBytes, " at most; ExportRun sends it in chunks"),
                         "RUN_TOO_LARGE", {{"run_id", run_id}});
}

// The run with the results of the experiments that are asked for.
absl::StatusOr<v1::GetRunResponse> ReadForExport(RunStore& store, const v1::ExportRunRequest& request) {
  Violations violations;
  CheckRunId(request.run_id(), violations);
  for (int i = 0; i < request.experiments_size(); ++i) {
    if (!IsExperiment(request.experiments(i)))
      violations.Add(absl::StrCat("experiments[", i, "]"), "is none");
  }
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(request.run_id()));
  if (request.experiments().empty()) return run;
  const auto& wanted = request.experiments();
  for (const ExperimentInfo& experiment : Experiments()) {
    if (std::find(wanted.begin(), wanted.end(), experiment.kind) == wanted.end()) {
      ClearResultsOf(*run.mutable_study(), experiment.kind);
    }
  }
  return run;
}

// Passes `bytes` on in pieces until `write` says that nobody reads them any longer.
template <typename Write>
grpc::Status WritePieces(const std::string& bytes, Write write) {
  for (size_t offset = 0; offset < bytes.size(); offset += kPieceBytes) {
    if (!write(bytes.substr(offset, kPieceBytes))) return grpc::Status::CANCELLED;
  }
  return grpc::Status::OK;
}

absl::Status Rank(RunStore& store, const v1::GetRankingRequest& request, v1::GetRankingResponse& response) {
  Violations violations;
  CheckRunId(request.run_id(), violations);
  const v1::ComponentKind kind = request.kind();
  if (kind != v1::COMPONENT_KIND_UNSPECIFIED && kind != v1::COMPONENT_KIND_HEAD &&
      kind != v1::COMPONENT_KIND_NEURON_GROUP) {
    violations.Add("kind", "must be HEAD, NEURON_GROUP or unset; others are not ranked");
  }
  Page page(request.limit() == 0 ? kDefaultRankingLimit : request.limit(), violations.At("limit"));
  const auto last = ReadPageToken(request.page_token(), violations.At("page_token"));
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::PatchingResults patching, PatchingOf(store, request.run_id()));
  for (int i = last ? static_cast<int>(std::clamp<int64_t>(last->order, 0, patching.ranking_size())) : 0;
       i < patching.ranking_size(); ++i) {
    const v1::RankedComponent& component = patching.ranking(i);
    if (kind != v1::COMPONENT_KIND_UNSPECIFIED && component.component().kind() != kind) continue;
    if (!page.Take(component)) {
      response.set_next_page_token(PageToken({i, ""}));
      break;
    }
    *response.add_components() = component;
  }
  if (!last) *response.mutable_layers() = patching.layers();
  return absl::OkStatus();
}

// How many of a circuit's parts are asked for.
uint32_t CountOf(uint32_t requested, uint32_t otherwise, uint32_t most, const std::string& field,
                 Violations& violations) {
  if (requested > most) violations.Add(field, absl::StrCat("must be at most ", most));
  return requested == 0 ? otherwise : requested;
}

absl::Status DrawCircuit(RunStore& store, const v1::GetCircuitRequest& request,
                         v1::GetCircuitResponse& response) {
  Violations violations;
  CheckRunId(request.run_id(), violations);
  const uint32_t nodes = CountOf(request.component_count(), kDefaultCircuitComponents, kMaxCircuitComponents,
                                 "component_count", violations);
  const uint32_t edges =
      CountOf(request.edge_count(), kDefaultCircuitEdges, kMaxCircuitEdges, "edge_count", violations);
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetRunResponse run, store.Get(request.run_id()));
  if (!run.study().has_circuit()) return NoResults(request.run_id(), "circuit", "NO_CIRCUIT_RESULTS");
  response = CircuitOf(run.study().circuit(), static_cast<int>(nodes), static_cast<int>(edges));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Render(RunStore& store, const std::string& run_id) {
  ABSTRACT_RETURN_IF_ERROR(CheckedRunId(run_id));
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(run_id));
  return RenderDashboard(std::move(run));
}

}  // namespace

grpc::Status AnalysisServiceImpl::ImportRun(grpc::ServerContext*, const v1::ImportRunRequest* request,
                                            v1::ImportRunResponse* response) {
  response->set_http_address(http_address_);
  return ToGrpcStatus(Import(store_, *request, *response));
}

grpc::Status AnalysisServiceImpl::ListRuns(grpc::ServerContext*, const v1::ListRunsRequest* request,
                                           v1::ListRunsResponse* response) {
  return ToGrpcStatus(ListPage(store_, *request, *response));
}

grpc::Status AnalysisServiceImpl::GetRun(grpc::ServerContext*, const v1::GetRunRequest* request,
                                         v1::GetRunResponse* response) {
  auto run = Get(store_, request->run_id());
  if (run.ok()) *response = *std::move(run);
  return ToGrpcStatus(run.status());
}

grpc::Status AnalysisServiceImpl::ExportRun(grpc::ServerContext*, const v1::ExportRunRequest* request,
                                            grpc::ServerWriter<v1::ExportRunResponse>* writer) {
  absl::StatusOr<v1::GetRunResponse> run = ReadForExport(store_, *request);
  if (!run.ok()) return ToGrpcStatus(run.status());
  const std::string study = run->study().SerializeAsString();
  run->clear_study();
  v1::ExportRunResponse response;
  *response.mutable_description() = run->description();
  if (!writer->Write(response)) return grpc::Status::CANCELLED;  // The client has gone.
  return WritePieces(study, [&](std::string piece) {
    response.set_study_chunk(std::move(piece));
    return writer->Write(response);
  });
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
  v1::RenderDashboardResponse response;
  return WritePieces(*html, [&](std::string piece) {
    response.set_html(std::move(piece));
    return writer->Write(response);
  });
}

}  // namespace mechinterp
