#include "clients/experiments/stored_sources.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "clients/lib/parallel.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr size_t kNamedRemains = 3;

}  // namespace

StoredSources::StoredSources(ModelClient* client, std::vector<v1::Prompt> prompts,
                             std::vector<std::string> name_patterns, int concurrency,
                             ExperimentMonitor* monitor)
    : client_(client),
      prompts_(std::move(prompts)),
      name_patterns_(std::move(name_patterns)),
      concurrency_(concurrency),
      monitor_(monitor) {}

StoredSources::~StoredSources() { Delete(); }

absl::StatusOr<StoredSources::Handles> StoredSources::Get() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!valid_) {
    Delete();
    ABSTRACT_RETURN_IF_ERROR(Store());
    valid_ = true;
    ++current_.generation;
  }
  return current_;
}

void StoredSources::MarkLost(int generation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (generation == current_.generation) valid_ = false;
}

absl::Status StoredSources::Store() {
  current_.handles.assign(prompts_.size(), "");
  return ParallelFor(static_cast<int>(prompts_.size()), concurrency_, [&](int i) -> absl::Status {
    v1::RunWithCacheRequest request;
    *request.mutable_prompt() = prompts_[static_cast<size_t>(i)];
    request.mutable_filter()->mutable_name_patterns()->Assign(name_patterns_.begin(), name_patterns_.end());
    request.set_store(true);
    ABSTRACT_ASSIGN_OR_RETURN(const CachedRun run, client_->RunWithCache(request));
    if (run.summary.handle().empty()) return absl::DataLossError("RunWithCache: the server gave no handle");
    current_.handles[static_cast<size_t>(i)] = run.summary.handle();
    return absl::OkStatus();
  });
}

void StoredSources::Delete() {
  std::vector<std::string> remains;
  absl::Status reason;
  for (const std::string& handle : current_.handles) {
    if (handle.empty()) continue;
    if (!absl::IsUnavailable(reason) && !absl::IsDeadlineExceeded(reason)) {
      const absl::Status status = client_->DeleteActivation(handle);
      if (status.ok() || absl::IsNotFound(status)) continue;
      reason = status;
    }
    remains.push_back(handle);
  }
  current_.handles.clear();
  if (!remains.empty() && monitor_ != nullptr) TellOfRemains(remains, reason);
}

void StoredSources::TellOfRemains(const std::vector<std::string>& handles, const absl::Status& reason) {
  const absl::Span<const std::string> named =
      absl::MakeConstSpan(handles).first(std::min(handles.size(), kNamedRemains));
  monitor_->Remark(absl::StrCat(handles.size(), handles.size() == 1 ? " stored run is" : " stored runs are",
                                " left on the server (", absl::StrJoin(named, ", "),
                                named.size() < handles.size() ? ", ..." : "",
                                "), which drops what is not used: ", reason.message()));
}

}  // namespace mechinterp
