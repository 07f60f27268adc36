#ifndef SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_
#define SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_

#include <vector>

#include "services/engine/forward/batch.h"
#include "services/engine/weights/rotary_frequencies.h"

namespace mechinterp::engine {

// Cosines and sines of the rotary angles of every row of a batch, the same in all layers:
// [N, Dh / 2] (Su et al. 2021). A value.
struct RotaryAngles {
  // A row's are its own sequence's: where they depend on a length (dynamic rope scaling), a
  // prompt is rotated by its whole length, and a token that continues it by the length up to
  // itself, on keys that stay as they were.
  RotaryAngles(const Batch& batch, const RotaryFrequencies& rotary);

  std::vector<float> cosines;
  std::vector<float> sines;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_
