#include "clients/lib/progress.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mechinterp {
namespace {

constexpr int kBarWidth = 24;
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(10);
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

std::string ClockDuration(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  if (seconds < 3600) return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
  return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

std::string ProgressLine(std::string_view stage, int done, double partly_done, int total,
                         absl::Duration left) {
  const auto share = total > 0 ? static_cast<int64_t>(100 * (done + partly_done) / total) : 100;
  const size_t filled = static_cast<size_t>(share * kBarWidth / 100);
  std::string line = absl::StrFormat("%s  [%s%s] %3d %%  %d/%d", stage, std::string(filled, '#'),
                                     std::string(kBarWidth - filled, '-'), share, done, total);
  if (left >= absl::ZeroDuration()) absl::StrAppend(&line, "  ", ClockDuration(left), " left");
  return line;
}

ProgressPrinter::ProgressPrinter(std::ostream& out, bool is_terminal, std::function<absl::Time()> now)
    : out_(out), is_terminal_(is_terminal), now_(std::move(now)) {}

void ProgressPrinter::Begin(std::string_view stage, int total, int done) {
  const std::lock_guard<std::mutex> lock(mutex_);
  in_stage_ = true;
  stage_ = std::string(stage);
  total_ = total;
  done_ = resumed_ = done;
  partly_done_ = 0;
  begin_ = now_();
  last_print_ = absl::InfinitePast();
  Print(begin_);
}

void ProgressPrinter::Advance(int runs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++done_;
  partly_done_ = std::max(0.0, partly_done_ - 1);
  PrintIfDue();
}

void ProgressPrinter::AdvancePart(double share) {
  const std::lock_guard<std::mutex> lock(mutex_);
  partly_done_ = std::min<double>(partly_done_ + share, total_ - done_);
  PrintIfDue();
}

void ProgressPrinter::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  in_stage_ = false;
  if (is_terminal_) out_ << kClearLine;
  out_ << stage_ << ": " << done_ << "/" << total_ << " in " << ClockDuration(now_() - begin_);
  if (resumed_ > 0) out_ << " (" << resumed_ << " taken over from a former run)";
  out_ << std::endl;
}

void ProgressPrinter::Remark(std::string_view text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (is_terminal_ && in_stage_) out_ << kClearLine;
  out_ << text << std::endl;
  if (is_terminal_ && in_stage_) Print(now_());
}

void ProgressPrinter::PrintIfDue() {
  const absl::Time now = now_();
  if (now - last_print_ >= (is_terminal_ ? kRedrawInterval : kLineInterval)) Print(now);
}

void ProgressPrinter::Print(absl::Time now) {
  last_print_ = now;
  const double done_here = done_ + partly_done_ - resumed_;
  const absl::Duration left =
      done_here > 0 ? (now - begin_) * ((total_ - done_ - partly_done_) / done_here) : -absl::Seconds(1);
  const std::string line = ProgressLine(stage_, done_, partly_done_, total_, left);
  if (is_terminal_) {
    out_ << kClearLine << line << std::flush;
  } else {
    out_ << line << std::endl;
  }
}

}  // namespace mechinterp
