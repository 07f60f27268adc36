#include "services/rpc/span_exporter.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "services/common/status_macros.h"
#include "services/common/trace_context.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

std::string TracesUrl(const std::string& endpoint) {
  const std::string base(absl::StripSuffix(endpoint, "/"));
  return absl::EndsWith(base, "/v1/traces") ? base : absl::StrCat(base, "/v1/traces");
}

// What OTLP says may be sent again; all other answers are final.
bool MayBeSentAgain(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

// How many of the spans a collector did not take though it answered 200 (ExportTracePartialSuccess).
size_t RejectedSpans(const std::string& answer) {
  const nlohmann::json parsed = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("partialSuccess")) return 0;
  const nlohmann::json& partial = parsed["partialSuccess"];
  if (!partial.is_object() || !partial.contains("rejectedSpans")) return 0;
  const nlohmann::json& count = partial["rejectedSpans"];  // a 64-bit number: mostly a string
  if (count.is_number_unsigned()) return count.get<size_t>();
  size_t number = 0;
  return count.is_string() && absl::SimpleAtoi(count.get<std::string>(), &number) ? number : 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SpanExporter>> SpanExporter::Start(const SpanExportOptions& options,
                                                                  std::shared_ptr<RpcMetrics> metrics) {
  // As it was given first: "http://" with a path behind would name a host.
  absl::StatusOr<std::unique_ptr<HttpPoster>> poster = HttpPoster::Create(options.endpoint);
  if (poster.ok()) poster = HttpPoster::Create(TracesUrl(options.endpoint));
  if (!poster.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--otlp-endpoint ", poster.status().message()));
  }
  return std::unique_ptr<SpanExporter>(new SpanExporter(options, *std::move(poster), std::move(metrics)));
}

SpanExporter::SpanExporter(const SpanExportOptions& options, std::unique_ptr<HttpPoster> poster,
                           std::shared_ptr<RpcMetrics> metrics)
    : options_(options),
      resource_{options.service_name, NewSpanId()},
      poster_(std::move(poster)),
      metrics_(std::move(metrics)),
      thread_([this] { Loop(); }) {}

SpanExporter::~SpanExporter() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    end_ = absl::Now() + options_.last_words;
  }
  changed_.notify_all();
  thread_.join();
}

void SpanExporter::Add(RequestRecord request) {
  std::unique_lock lock(mutex_);
  if (queue_.size() >= options_.max_queued) {
    lock.unlock();
    return Count(Dropped::kQueueFull, 1);
  }
  queue_.push_back(std::move(request));
  if (queue_.size() == options_.max_batch) changed_.notify_all();
}

void SpanExporter::Count(Dropped why, size_t spans) {
  if (metrics_ == nullptr) return;
  const RpcMetrics::SpanSeries& series = metrics_->spans;
  prometheus::Counter& counter = why == Dropped::kQueueFull     ? series.queue_full
                                 : why == Dropped::kUndelivered ? series.undelivered
                                                                : series.refused;
  counter.Increment(static_cast<double>(spans));
}

// Once for a time of failures.
void SpanExporter::Tell(const std::string& what) {
  if (std::exchange(is_failing_, true)) return;
  spdlog::warn("traces are not exported: {}", what);
}

bool SpanExporter::TimeIsUp() {
  const std::lock_guard lock(mutex_);
  return absl::Now() >= end_;
}

bool SpanExporter::Sleep(absl::Duration pause) {
  std::unique_lock lock(mutex_);
  return !changed_.wait_for(lock, absl::ToChronoNanoseconds(pause), [this] { return stopping_; });
}

std::vector<RequestRecord> SpanExporter::TakeBatch() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.interval),
                      [this] { return stopping_ || queue_.size() >= options_.max_batch; });
    if (!queue_.empty() || stopping_) break;
  }
  const size_t count = std::min(queue_.size(), options_.max_batch);
  std::vector<RequestRecord> batch(std::make_move_iterator(queue_.begin()),
                                   std::make_move_iterator(queue_.begin() + static_cast<ptrdiff_t>(count)));
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  return batch;
}

void SpanExporter::Loop() {
  while (true) {
    const std::vector<RequestRecord> batch = TakeBatch();
    if (batch.empty()) return;
    Send(batch);
  }
}

void SpanExporter::Send(const std::vector<RequestRecord>& batch) {
  const std::string body = SpansAsJson(resource_, batch);
  absl::Duration pause = options_.first_pause;
  for (int attempt = 0;; ++attempt) {
    Failure failure;
    if (TrySend(body, batch.size(), failure)) {
      if (std::exchange(is_failing_, false)) spdlog::info("traces are exported again");
      return;
    }
    Tell(failure.what);
    if (failure.is_final) return Count(Dropped::kRefused, batch.size());
    // At the end there is no time for a second attempt.
    if (attempt == options_.max_retries ||
        !Sleep(std::max(pause, std::min(failure.pause, absl::Minutes(1))))) {
      return Count(Dropped::kUndelivered, batch.size());
    }
    pause *= 2;
  }
}

bool SpanExporter::TrySend(const std::string& body, size_t spans, Failure& failure) {
  if (TimeIsUp()) {
    failure.what = "the server ends";
    return false;
  }
  const absl::StatusOr<HttpPostAnswer> answer =
      poster_->Post("application/json", body, options_.timeout, [this] { return TimeIsUp(); });
  if (!answer.ok()) {
    failure.what = std::string(answer.status().message());
    return false;
  }
  if (answer->status / 100 != 2) {
    failure = {!MayBeSentAgain(answer->status), answer->retry_after,
               absl::StrCat(poster_->url(), " answers ", answer->status)};
    return false;
  }
  const size_t rejected = std::min(spans, RejectedSpans(answer->body));
  Count(Dropped::kRefused, rejected);
  if (metrics_ != nullptr) metrics_->spans.exported.Increment(static_cast<double>(spans - rejected));
  return true;
}

}  // namespace mechinterp
