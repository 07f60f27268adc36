#include "services/analysis/dashboard_server.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "services/analysis/dashboard_login.h"
#include "services/analysis/dashboard_pages.h"
#include "services/analysis/gzip.h"
#include "services/analysis/page_cache.h"
#include "services/common/experiments.h"
#include "services/common/paging.h"
#include "services/common/proto_json.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr char kHtml[] = "text/html; charset=utf-8";
constexpr char kLoginPath[] = "/login";
constexpr size_t kRunsOnPage = 100;
// One renders a page while others answer.
constexpr int kThreads = 4;

HttpResponse Send(std::string body, const char* type, int status = 200) {
  HttpResponse response = TextResponse(status, std::move(body));
  response.content_type = type;
  return response;
}

HttpResponse RedirectTo(const std::string& path, int status = 302) {
  HttpResponse response;
  response.status = status;
  response.headers.emplace_back("Location", path);
  return response;
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

HttpResponse Fail(const absl::Status& status) {
  return Send(ErrorPage(std::string(status.message())), kHtml, HttpStatus(status));
}

// `refusal`: why the token that came would not do; Ok where there was none.
HttpResponse AskForToken(const absl::Status& refusal = absl::OkStatus()) {
  if (refusal.ok()) return Send(LoginPage(""), kHtml, 401);
  const bool is_limit = absl::IsResourceExhausted(refusal);
  return Send(LoginPage(is_limit ? std::string(refusal.message()) : "That is no valid token"), kHtml,
              is_limit ? 429 : 401);
}

absl::StatusOr<std::string> ResultsJson(RunStore& store, const std::string& run_id, const std::string& name) {
  ABSTRACT_ASSIGN_OR_RETURN(const v1::GetRunResponse run, store.Get(run_id));
  for (const ExperimentInfo& experiment : Experiments()) {
    const google::protobuf::Message* const results = ResultsOf(run.study(), experiment.kind);
    if (experiment.name == name && results != nullptr) return MessageToJson(*results, JsonStyle::kReadable);
  }
  return absl::NotFoundError(absl::StrCat("run \"", run_id, "\" has no ", name, " results"));
}

bool IsName(const std::string& text, size_t most, const char* characters) {
  return !text.empty() && text.size() <= most && text.find_first_not_of(characters) == std::string::npos;
}

bool IsRunId(const std::string& text) {
  return IsName(text, 64, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
}

class Dashboards {
 public:
  Dashboards(RunStore* store, TokenCheck check) : store_(*store), pages_(store), check_(std::move(check)) {}

  HttpResponse Answer(const HttpRequest& request) {
    if (request.path == "/healthz") return TextResponse(200, "ok\n");
    if (check_ == nullptr) return Route(request);
    if (request.path == kLoginPath) return request.method == "POST" ? LogIn(request) : AskForToken();
    const std::string token = TokenOfCookies(request.header("Cookie"));
    if (token.empty()) return AskForToken();
    const absl::Status status = check_(token, request.peer);
    return status.ok() ? Route(request) : AskForToken(status);
  }

 private:
  HttpResponse LogIn(const HttpRequest& request) {
    const std::string token = TokenOfForm(request.body);
    const absl::Status status = check_(token, request.peer);
    if (!status.ok()) return AskForToken(status);
    HttpResponse response = RedirectTo("/", 303);
    response.headers.emplace_back("Set-Cookie", TokenCookie(token));
    return response;
  }

  HttpResponse Route(const HttpRequest& request) {
    if (request.path == "/") return Latest();
    if (request.path == "/runs") return List(request.query("page_token"));
    const std::vector<std::string> parts = absl::StrSplit(request.path, '/');
    const bool is_run = parts.size() >= 3 && parts[0].empty() && parts[1] == "runs" && IsRunId(parts[2]);
    if (is_run && parts.size() == 3) return Dashboard(parts[2], request.header("Accept-Encoding"));
    if (is_run && parts.size() == 4 && absl::EndsWith(parts[3], ".json")) {
      const std::string name(absl::StripSuffix(parts[3], ".json"));
      if (IsName(name, 32, "abcdefghijklmnopqrstuvwxyz_")) return Results(parts[2], name);
    }
    return Fail(absl::NotFoundError("There is no such page"));
  }

  HttpResponse Latest() {
    const auto runs = store_.List(1);
    if (!runs.ok()) return Fail(runs.status());
    return RedirectTo(runs->empty() ? "/runs" : absl::StrCat("/runs/", runs->front().run_id()));
  }

  HttpResponse List(const std::string& token) {
    absl::StatusOr<std::string> list = ListRuns(store_, token);
    return list.ok() ? Send(*std::move(list), kHtml) : Fail(list.status());
  }

  HttpResponse Dashboard(const std::string& run_id, const std::string& encodings) {
    const auto page = pages_.Get(run_id);
    if (!page.ok()) return Fail(page.status());
    HttpResponse response;
    response.content_type = kHtml;
    response.headers.emplace_back("Vary", "Accept-Encoding");
    const bool compressed = AcceptsGzip(encodings);
    if (compressed) response.headers.emplace_back("Content-Encoding", "gzip");
    // A part of the page, which it keeps alive.
    response.body = {*page, compressed ? &(*page)->gzip : &(*page)->html};
    return response;
  }

  HttpResponse Results(const std::string& run_id, const std::string& name) {
    absl::StatusOr<std::string> json = ResultsJson(store_, run_id, name);
    return json.ok() ? Send(*std::move(json), "application/json") : Fail(json.status());
  }

  RunStore& store_;
  PageCache pages_;
  const TokenCheck check_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> StartDashboardServer(const std::string& listen_address,
                                                                 RunStore* store, DashboardOptions options) {
  HttpServerOptions server;
  server.threads = kThreads;
  server.allowed_hosts = std::move(options.allowed_hosts);
  if (options.check != nullptr) server.forms = {kLoginPath};
  const auto dashboards = std::make_shared<Dashboards>(store, std::move(options.check));
  return HttpServer::Start(
      listen_address, [dashboards](const HttpRequest& request) { return dashboards->Answer(request); },
      server);
}

}  // namespace mechinterp
