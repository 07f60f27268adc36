#ifndef SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_
#define SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_

#include <vector>

#include "services/engine/forward/batch.h"

namespace mechinterp::engine {

// Cosines and sines of the rotary angles of every row of a batch, the same in all layers:
// [N, Dh / 2] (Su et al. 2021). A value.
struct RotaryAngles {
  // `frequencies`: radians per position of each pair of a head, [Dh / 2].
  RotaryAngles(const Batch& batch, const std::vector<float>& frequencies);

  std::vector<float> cosines;
  std::vector<float> sines;
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ROTARY_ANGLES_H_
