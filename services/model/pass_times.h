#ifndef SERVICES_MODEL_PASS_TIMES_H_
#define SERVICES_MODEL_PASS_TIMES_H_

#include <optional>

#include "absl/time/time.h"

namespace mechinterp {

// What passes take, as they were seen: those that only decode, and a row more. Means in which a
// pass that is 16 passes old counts a third. Not thread-safe.
class PassTimes {
 public:
  void Observe(int decode_rows, int other_rows, absl::Duration took);
  // Rows that a pass with decoding steps may have besides, so that it takes twice as long as
  // without them; nothing while that is not known.
  std::optional<int> RowsThatDoubleADecode() const;

 private:
  static void Mix(double& mean, double value) { mean += (mean == 0 ? 1.0 : 1.0 / 16) * (value - mean); }

  double decode_seconds_ = 0;  // of a pass; 0: none was seen
  double row_seconds_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_PASS_TIMES_H_
