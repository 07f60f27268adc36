#include "clients/experiments/stored_sources.h"

#include <utility>

#include "clients/lib/parallel.h"
#include "services/common/status_macros.h"

namespace mechinterp {

StoredSources::StoredSources(ModelClient* client, std::vector<v1::Prompt> prompts,
                             std::vector<std::string> name_patterns, int concurrency)
    : client_(client),
      prompts_(std::move(prompts)),
      name_patterns_(std::move(name_patterns)),
      concurrency_(concurrency) {}

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
  for (const std::string& handle : current_.handles) {
    if (!handle.empty()) client_->DeleteActivation(handle).IgnoreError();
  }
  current_.handles.clear();
}

}  // namespace mechinterp
