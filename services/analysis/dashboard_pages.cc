#include "services/analysis/dashboard_pages.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "google/protobuf/util/time_util.h"
#include "services/common/experiments.h"

namespace mechinterp {
namespace {

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

}  // namespace

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

std::string ErrorPage(const std::string& problem) {
  return Page("This did not work",
              absl::StrCat("<p>", EscapeHtml(problem), ".</p><p><a href=\"/runs\">All studies</a></p>"));
}

std::string LoginPage(const std::string& problem) {
  return Page("Studies",
              absl::StrCat(problem.empty() ? "" : absl::StrCat("<p>", EscapeHtml(problem), ".</p>"),
                           R"(<form method="post" action="/login"><p><label>Token
<input name="token" type="password" autocomplete="current-password" required autofocus></label>
<button>Open</button></p></form>
<p>Whoever runs this server makes tokens by <code>abstract token create</code>.</p>
)"));
}

}  // namespace mechinterp
