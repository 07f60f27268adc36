#ifndef SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_GRADIENT_H_
#define SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_GRADIENT_H_

#include <ATen/core/Tensor.h>

#include "services/engine/forward/aten_attention.h"

namespace mechinterp::engine {

// Of one segment: query [T, H * Dh], key and value [T, KV * Dh], or the gradients with respect to
// them.
struct AttentionTensors {
  at::Tensor query;
  at::Tensor key;
  at::Tensor value;
};

// Arithmetic::AttendBackward by libtorch, for one segment.
AttentionTensors AttendBackward(AtenAttention& attention, const Batch::Item& item, int layer, int run,
                                const AttentionTensors& forward, const at::Tensor& z_gradient);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_ATEN_ATTENTION_GRADIENT_H_
