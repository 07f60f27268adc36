#ifndef DATA_MAKE_TRAINED_PATCHED_FORWARD_H_
#define DATA_MAKE_TRAINED_PATCHED_FORWARD_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "data/make_trained/edge_space.h"
#include "data/trainer/model.h"

namespace mechinterp::make_trained {

// The trainer's forward pass with every edge of the network open to patching, and
// differentiable, through source values too.

// Each receiver reads the residual stream, and of the senders that its row of the mask names what
// they wrote in the source's run instead of what they write in this one (as path patching has it,
// for any set of edges at once).
struct EdgePatch {
  at::Tensor mask;                 // [B, S, R] fp32: 1 where the edge is patched
  std::vector<at::Tensor> source;  // by sender [B, T, D]
};

struct EdgeRun {
  at::Tensor hidden;                 // [B, T, D] after the last norm
  std::vector<at::Tensor> senders;   // what each wrote, [B, T, D]
  std::vector<at::Tensor> patterns;  // of attention, by layer [B, H, T, T]
};

// For token ids [B, T]. `patch` may be null.
EdgeRun RunEdges(const trainer::ModelConfig& config, const trainer::Weights& weights, const at::Tensor& ids,
                 const EdgePatch* patch);

EdgeSpace SpaceOf(const trainer::ModelConfig& config);

}  // namespace mechinterp::make_trained

#endif  // DATA_MAKE_TRAINED_PATCHED_FORWARD_H_
