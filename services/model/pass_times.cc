#include "services/model/pass_times.h"

#include <algorithm>

namespace mechinterp {
namespace {

// Of fewer rows the time is that of reading the weights.
constexpr int kEnoughRows = 64;

}  // namespace

void PassTimes::Observe(int decode_rows, int other_rows, absl::Duration took) {
  const double seconds = absl::ToDoubleSeconds(took);
  if (other_rows == 0 && decode_rows > 0) Mix(decode_seconds_, seconds);
  if (const int rows = decode_rows + other_rows; rows >= kEnoughRows) Mix(row_seconds_, seconds / rows);
}

std::optional<int> PassTimes::RowsThatDoubleADecode() const {
  if (decode_seconds_ == 0 || row_seconds_ == 0) return std::nullopt;
  return static_cast<int>(std::clamp(decode_seconds_ / row_seconds_, 1.0, 1e6));
}

}  // namespace mechinterp
