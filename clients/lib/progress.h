#ifndef CLIENTS_LIB_PROGRESS_H_
#define CLIENTS_LIB_PROGRESS_H_

#include <functional>
#include <mutex>
#include <ostream>
#include <string>
#include <string_view>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/lib/monitor.h"

namespace mechinterp {

// Shows progress with an estimate of the time left: on a terminal one line that
// is drawn again at most ten times a second, otherwise a line every ten seconds.
// Remarks get lines of their own.
// Thread-safe; `out` must outlive it.
class ProgressPrinter : public ExperimentMonitor {
 public:
  ProgressPrinter(std::ostream& out, bool is_terminal, std::function<absl::Time()> now = absl::Now);

  void Begin(std::string_view stage, int total, int done) override;
  void Advance(int runs) override;
  void AdvancePart(double share) override;
  void End() override;
  void Remark(std::string_view text) override;

 private:
  void PrintIfDue();  // with the lock held
  void Print(absl::Time now);

  std::ostream& out_;
  const bool is_terminal_;
  const std::function<absl::Time()> now_;
  std::mutex mutex_;
  // All below guarded by mutex_.
  bool in_stage_ = false;
  std::string stage_;
  int total_ = 0;
  int done_ = 0;
  double partly_done_ = 0;  // of the steps in progress
  int resumed_ = 0;
  absl::Time begin_;
  absl::Time last_print_ = absl::InfinitePast();
};

// "patching  [########------------]  40 %  12/30  0:07 left". `partly_done`: steps'
// worth done of those in progress, for the bar alone. `left` below zero is left out.
std::string ProgressLine(std::string_view stage, int done, double partly_done, int total,
                         absl::Duration left);

// "0:07", "12:30", "1:02:03".
std::string ClockDuration(absl::Duration duration);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_PROGRESS_H_
