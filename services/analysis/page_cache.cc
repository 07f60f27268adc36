#include "services/analysis/page_cache.h"

#include <algorithm>
#include <utility>

#include "services/analysis/dashboard.h"
#include "services/analysis/gzip.h"
#include "services/common/status_macros.h"

namespace mechinterp {

absl::StatusOr<DashboardPage> MakePage(v1::GetRunResponse run) {
  DashboardPage page;
  ABSTRACT_ASSIGN_OR_RETURN(page.html, RenderDashboard(std::move(run)));
  ABSTRACT_ASSIGN_OR_RETURN(page.gzip, Gzip(page.html));
  return page;
}

PageCache::PageCache(RunStore* store, size_t max_bytes, Make make)
    : store_(*store), max_bytes_(max_bytes), make_(std::move(make)) {}

absl::StatusOr<std::shared_ptr<const DashboardPage>> PageCache::Get(const std::string& run_id) {
  const std::lock_guard lock(mutex_);
  ABSTRACT_ASSIGN_OR_RETURN(const v1::RunDescription described, store_.Describe(run_id));
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.run_id == run_id; });
  if (found != entries_.end() && found->update_time_micros == PositionOf(described).order) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front().page;
  }
  if (found != entries_.end()) entries_.erase(found);
  ABSTRACT_ASSIGN_OR_RETURN(v1::GetRunResponse run, store_.Get(run_id));
  const int64_t update_time_micros = PositionOf(run.description()).order;
  ABSTRACT_ASSIGN_OR_RETURN(DashboardPage page, make_(std::move(run)));
  entries_.push_front({run_id, update_time_micros, std::make_shared<const DashboardPage>(std::move(page))});
  Trim();
  return entries_.front().page;
}

void PageCache::Trim() {
  size_t bytes = 0;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    bytes += entry->page->html.size() + entry->page->gzip.size();
    entry = bytes > max_bytes_ && entry != entries_.begin() ? entries_.erase(entry) : std::next(entry);
  }
}

}  // namespace mechinterp
