#include "services/analysis/dashboard_server.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/util/time_util.h"
#include "httplib.h"
#include "services/analysis/gzip.h"
#include "services/analysis/page_cache.h"
#include "services/common/experiments.h"
#include "services/common/paging.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

constexpr char kHtml[] = "text/html; charset=utf-8";
constexpr size_t kRunsOnPage = 100;

void Send(httplib::Response& response, std::string body, const char* type) {
  SetBody(response, std::make_shared<const std::string>(std::move(body)), type);
}

std::string EscapeHtml(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

// A small page in the dashboard's spirit.
std::string Page(const std::string& title, const std::string& body) {
  return absl::StrCat(R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>)",
                      EscapeHtml(title), R"(</title><style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto; padding: 0 1.25rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid #8884; }
code { background: #8882; padding: .1em .35em; border-radius: .25em; }
</style></head><body><h1>)",
                      EscapeHtml(title), "</h1>\n", body, "</body></html>\n");
}

// The run's experiments, each a link to its results. `id` is the run's, for HTML.
std::string ResultsLinks(const v1::RunDescription& run, const std::string& id) {
  return absl::StrJoin(run.experiments(), " ", [&](std::string* out, int kind) {
    const std::string& name = InfoOf(static_cast<v1::ExperimentKind>(kind)).name;
    absl::StrAppend(out, "<a href=\"/runs/", id, "/", name, ".json\">", name, "</a>");
  });
}

// `older`: where the list goes on; empty at its end.
std::string ListPage(const std::vector<v1::RunDescription>& runs, const std::string& older) {
  if (runs.empty()) {
    return Page("Studies",
                "<p>No study has been imported yet. Run <code>abstract baseline</code>, <code>abstract "
                "patching</code> and <code>abstract ablation</code>, then start this server with "
                "<code>--results outputs/results</code>.</p>");
  }
  std::string rows;
  for (const v1::RunDescription& run : runs) {
    const std::string id = EscapeHtml(run.run_id());
    absl::StrAppend(&rows, "<tr><td><a href=\"/runs/", id, "\">", id, "</a></td><td>",
                    EscapeHtml(run.model_name()), "</td><td>", ResultsLinks(run, id), "</td><td>",
                    google::protobuf::util::TimeUtil::ToString(run.update_time()), "</td></tr>\n");
  }
  return Page("Studies",
              absl::StrCat("<table><thead><tr><th>Run</th><th>Model</th><th>Results</th><th>Updated</th>"
                           "</tr></thead><tbody>",
                           rows, "</tbody></table>",
                           older.empty() ? "" : absl::StrCat("<p><a href=\"", older, "\">Older</a></p>")));
}

absl::StatusOr<std::string> ListRuns(RunStore& store, const std::string& token) {
  Violations violations;
  const auto last = ReadPageToken(token, violations.At("page_token"));
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  ABSTRACT_ASSIGN_OR_RETURN(std::vector<v1::RunDescription> runs,
                            store.List(static_cast<int>(kRunsOnPage) + 1, last));
  std::string older;
  if (runs.size() > kRunsOnPage) {
    runs.pop_back();
    older = absl::StrCat("/runs?page_token=", PageToken(PositionOf(runs.back())));
  }
  return ListPage(runs, older);
}

int HttpStatus(const absl::Status& status) {
  if (absl::IsNotFound(status)) return 404;
  return absl::IsInvalidArgument(status) ? 400 : 500;
}

void Fail(const absl::Status& status, httplib::Response& response) {
  response.status = HttpStatus(status);
  Send(response,
       Page("This did not work", absl::StrCat("<p>", EscapeHtml(std::string(status.message())),
                                              ".</p><p><a href=\"/runs\">All studies</a></p>")),
       kHtml);
}

void ServeDashboard(PageCache& pages, const httplib::Request& request, httplib::Response& response) {
  const auto page = pages.Get(request.matches[1]);
  if (!page.ok()) return Fail(page.status(), response);
  response.set_header("Vary", "Accept-Encoding");
  const bool compressed = AcceptsGzip(request.get_header_value("Accept-Encoding"));
  if (compressed) response.set_header("Content-Encoding", "gzip");
  // A part of the page, which it keeps alive.
  SetBody(response, {*page, compressed ? &(*page)->gzip : &(*page)->html}, kHtml);
}

absl::StatusOr<std::string> ResultsJson(RunStore& store, const std::string& run_id, const std::string& name) {
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetRunResponse run, store.Get(run_id));
  for (const ExperimentInfo& experiment : Experiments()) {
    const google::protobuf::Message* const results = ResultsOf(run.study(), experiment.kind);
    if (experiment.name == name && results != nullptr) return MessageToJson(*results, JsonStyle::kReadable);
  }
  return absl::NotFoundError(absl::StrCat("run \"", run_id, "\" has no ", name, " results"));
}

void ServeResults(RunStore& store, const std::string& run_id, const std::string& name,
                  httplib::Response& response) {
  absl::StatusOr<std::string> json = ResultsJson(store, run_id, name);
  if (!json.ok()) return Fail(json.status(), response);
  Send(response, *std::move(json), "application/json");
}

void AddRoutes(RunStore& store, httplib::Server& server) {
  const auto pages = std::make_shared<PageCache>(&store);
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
    Send(response, "ok\n", "text/plain");
  });
  server.Get("/", [&store](const httplib::Request&, httplib::Response& response) {
    const auto runs = store.List(1);
    if (!runs.ok()) return Fail(runs.status(), response);
    response.set_redirect(runs->empty() ? "/runs" : absl::StrCat("/runs/", runs->front().run_id()));
  });
  server.Get("/runs", [&store](const httplib::Request& request, httplib::Response& response) {
    absl::StatusOr<std::string> list = ListRuns(store, request.get_param_value("page_token"));
    if (!list.ok()) return Fail(list.status(), response);
    Send(response, *std::move(list), kHtml);
  });
  server.Get(R"(/runs/([A-Za-z0-9._-]{1,64}))",
             [pages](const httplib::Request& request, httplib::Response& response) {
               ServeDashboard(*pages, request, response);
             });
  server.Get(R"(/runs/([A-Za-z0-9._-]{1,64})/([a-z_]{1,32})\.json)",
             [&store](const httplib::Request& request, httplib::Response& response) {
               ServeResults(store, request.matches[1], request.matches[2], response);
             });
  server.set_default_headers({{"Cache-Control", "no-store"}, {"X-Content-Type-Options", "nosniff"}});
  server.set_logger([](const httplib::Request& request, const httplib::Response& response) {
    spdlog::debug("HTTP {} {} {}", request.method, request.path, response.status);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> StartDashboardServer(const std::string& listen_address,
                                                                 RunStore* store) {
  return HttpServer::Start(listen_address, [store](httplib::Server& server) { AddRoutes(*store, server); });
}

}  // namespace mechinterp
