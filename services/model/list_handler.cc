#include "services/model/list_handler.h"

#include <string>
#include <utility>

#include "services/common/paging.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"
#include "services/engine/interventions/hook_point.h"
#include "services/model/response_building.h"

namespace mechinterp {

absl::Status HandleListHookPoints(const ServedModel& served, const v1::ListHookPointsRequest& request,
                                  v1::ListHookPointsResponse& response) {
  Violations violations;
  Page page(request.page_size(), violations.At("page_size"));
  const auto last = ReadPageToken(request.page_token(), violations.At("page_token"));
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  const std::string pattern = request.name_pattern().empty() ? "*" : request.name_pattern();
  int64_t index = 0;
  for (const engine::HookSite& site : engine::MatchingSites(pattern, served.config())) {
    if (++index <= (last ? last->order : 0)) continue;
    v1::HookPointInfo info = BuildHookPointInfo(site, served.config());
    if (!page.Take(info)) {
      response.set_next_page_token(PageToken({index - 1, ""}));
      break;
    }
    *response.add_hook_points() = std::move(info);
  }
  return absl::OkStatus();
}

absl::Status HandleListActivations(ServedModel& served, const v1::ListActivationsRequest& request,
                                   v1::ListActivationsResponse& response, const std::string& owner) {
  Violations violations;
  Page page(request.page_size(), violations.At("page_size"));
  const auto last = ReadPageToken(request.page_token(), violations.At("page_token"));
  ABSTRACT_RETURN_IF_ERROR(ToStatus(violations));
  PagePosition taken;
  for (const ActivationStore::Entry& entry : served.store.List(owner)) {
    const PagePosition position{absl::ToUnixNanos(entry.info->create_time), entry.info->handle};
    if (last && !(*last < position)) continue;
    v1::StoredRun run = BuildStoredRun(served.config(), entry);
    if (!page.Take(run)) {
      response.set_next_page_token(PageToken(taken));
      break;
    }
    taken = position;
    *response.add_runs() = std::move(run);
  }
  return absl::OkStatus();
}

}  // namespace mechinterp
