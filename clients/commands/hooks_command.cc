#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/commands/session.h"
#include "clients/commands/tool.h"
#include "clients/lib/text_table.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

struct HooksFlags {
  std::string pattern;
};

std::string ShapeText(const v1::HookPointInfo& info) {
  return absl::StrCat("[",
                      absl::StrJoin(info.shape(), ", ",
                                    [](std::string* out, int64_t size) {
                                      absl::StrAppend(out, size < 0 ? "T" : absl::StrCat(size));
                                    }),
                      "]");
}

// With columns for what a point allows when some point does not allow both.
std::string TableOf(const v1::ListHookPointsResponse& response) {
  const auto& points = response.hook_points();
  const bool all_allow_both = std::all_of(points.begin(), points.end(), [](const v1::HookPointInfo& info) {
    return info.can_capture() && info.can_edit();
  });
  std::vector<std::string> header = {"hook point", "shape (T: positions)"};
  if (!all_allow_both) header.insert(header.end(), {"capture", "edit"});
  TextTable table(header);
  table.AlignLeft({1});
  for (const v1::HookPointInfo& info : points) {
    std::vector<std::string> row = {info.name(), ShapeText(info)};
    if (!all_allow_both) {
      row.insert(row.end(), {info.can_capture() ? "yes" : "no", info.can_edit() ? "yes" : "no"});
    }
    table.AddRow(row);
  }
  return table.ToString();
}

absl::Status RunHooks(Tool& tool, const HooksFlags& flags) {
  ABSTRACT_ASSIGN_OR_RETURN(const auto session, Session::Open(tool, "hooks"));
  ABSTRACT_ASSIGN_OR_RETURN(const v1::ListHookPointsResponse response,
                            session->client().ListHookPoints(flags.pattern));
  if (tool.json) return PrintJson(tool, response);
  tool.Print(TableOf(response));
  return absl::OkStatus();
}

}  // namespace

void AddHooksCommand(Command app, Tool& tool) {
  const Command command = app.AddSubcommand("hooks", "List the hook points of the model");
  const auto flags = std::make_shared<HooksFlags>();
  command.AddOption("pattern", flags->pattern, "Glob over names, as in 'blocks.3.*' or '*hook_z'");
  tool.SetActionOf(command, [&tool, flags] { return RunHooks(tool, *flags); });
}

}  // namespace mechinterp
