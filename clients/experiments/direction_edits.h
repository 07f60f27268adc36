#ifndef CLIENTS_EXPERIMENTS_DIRECTION_EDITS_H_
#define CLIENTS_EXPERIMENTS_DIRECTION_EDITS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "mechinterp/v1/hook.pb.h"

namespace mechinterp {

// What is done to a run with directions of the residual stream, at all positions and generated ones.

// Directional ablation (Arditi et al. 2024): these orthonormal vectors are projected out of the
// stream where a block reads it, and of what attention and MLP write to it, in every layer.
std::vector<v1::Intervention> ProjectOut(absl::Span<const std::vector<float>> units);

// Activation addition: `vector` is added to the stream where this layer reads it.
std::vector<v1::Intervention> AddTo(uint32_t layer, absl::Span<const float> vector);

// Affine editing (Marshall et al. 2024): the orthonormal vectors are projected out as above, and where
// a layer reads the stream it is given the part of `mean`, [layers, d_model], that lies in their span.
std::vector<v1::Intervention> SetPart(absl::Span<const std::vector<float>> units,
                                      absl::Span<const absl::Span<const float>> mean);

}  // namespace mechinterp

#endif  // CLIENTS_EXPERIMENTS_DIRECTION_EDITS_H_
