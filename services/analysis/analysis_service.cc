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

// Writes `bytes` in pieces, each put into a message by `set`.
template <typename Response, typename Set>
absl::Status WritePieces(const std::string& bytes, MessageWriter<Response>& writer, Response message,
                         Set set) {
  for (size_t offset = 0; offset < bytes.size(); offset += kPieceBytes) {
    set(message, bytes.substr(offset, kPieceBytes));
    ABSTRACT_RETURN_IF_ERROR(writer.Write(message));
  }
  return absl::OkStatus();
}

absl::Status Export(RunStore& store, const v1::ExportRunRequest& request,
                    MessageWriter<v1::ExportRunResponse>& writer) {
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, ReadForExport(store, request));
  v1::ExportRunResponse response;
  *response.mutable_description() = run.description();
  ABSTRACT_RETURN_IF_ERROR(writer.Write(response));
  return WritePieces(
      run.study().SerializeAsString(), writer, response,
      [](v1::ExportRunResponse& message, std::string piece) { message.set_study_chunk(std::move(piece)); });
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

absl::Status Render(RunStore& store, const v1::RenderDashboardRequest& request,
                    MessageWriter<v1::RenderDashboardResponse>& writer) {
  ABSTRACT_RETURN_IF_ERROR(CheckedRunId(request.run_id()));
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store.Get(request.run_id()));
  ABSTRACT_ASSIGN_OR_RETURN(const std::string html, RenderDashboard(std::move(run)));
  return WritePieces(
      html, writer, v1::RenderDashboardResponse(),
      [](v1::RenderDashboardResponse& message, std::string piece) { message.set_html(std::move(piece)); });
}

absl::Status Delete(RunStore& store, const std::string& run_id) {
  ABSTRACT_RETURN_IF_ERROR(CheckedRunId(run_id));
  return store.Delete(run_id);
}

}  // namespace

ServiceMethods AnalysisServiceImpl::Methods() {
  const MethodTraits read = {Lane::kWork};
  const MethodTraits write = {Lane::kWork, Priority::kInteractive, Access::kWrite};
  ServiceMethods methods(v1::ImportRunRequest::descriptor()->file()->FindServiceByName("AnalysisService"));
  methods.AddUnary<v1::ImportRunRequest, v1::ImportRunResponse>(
      "ImportRun", write, [this](Call&, const auto& request, auto& response) {
        response.set_http_address(http_address_);
        return Import(store_, request, response);
      });
  methods.AddUnary<v1::ListRunsRequest, v1::ListRunsResponse>(
      "ListRuns", read,
      [this](Call&, const auto& request, auto& response) { return ListPage(store_, request, response); });
  methods.AddUnary<v1::GetRunRequest, v1::GetRunResponse>(
      "GetRun", read, [this](Call&, const auto& request, auto& response) -> absl::Status {
        ABSTRACT_ASSIGN_OR_RETURN(response, Get(store_, request.run_id()));
        return absl::OkStatus();
      });
  methods.AddStream<v1::ExportRunRequest, v1::ExportRunResponse>(
      "ExportRun", read,
      [this](Call&, const auto& request, auto& writer) { return Export(store_, request, writer); });
  methods.AddUnary<v1::DeleteRunRequest, v1::DeleteRunResponse>(
      "DeleteRun", write,
      [this](Call&, const auto& request, auto&) { return Delete(store_, request.run_id()); });
  methods.AddUnary<v1::GetRankingRequest, v1::GetRankingResponse>(
      "GetRanking", read,
      [this](Call&, const auto& request, auto& response) { return Rank(store_, request, response); });
  methods.AddUnary<v1::GetCircuitRequest, v1::GetCircuitResponse>(
      "GetCircuit", read,
      [this](Call&, const auto& request, auto& response) { return DrawCircuit(store_, request, response); });
  methods.AddStream<v1::RenderDashboardRequest, v1::RenderDashboardResponse>(
      "RenderDashboard", read,
      [this](Call&, const auto& request, auto& writer) { return Render(store_, request, writer); });
  return methods;
}

}  // namespace mechinterp
