#include "services/engine/forward/aten_attention_gradient.h"

#include <ATen/Functions.h>

#include <cmath>
#include <limits>

#include "services/engine/device/transfer.h"
#include "services/engine/forward/gradient_hooks.h"

namespace mechinterp::engine {
namespace {

// The hooks see [T, H, K]; what the mask hides passes nothing.
void HookGradient(const AtenAttention& attention, const Batch::Item& item, const HookSite& site, int run,
                  at::Tensor& gradient) {
  const bool edits = Batch::Edits(item, site);
  if (!edits && !WantsGradient(item, site)) return;
  const int64_t heads = attention.config().head_count, keys = gradient.size(2);
  const at::Tensor host = ToHost(gradient.permute({1, 0, 2}).contiguous());
  auto* values = host.data_ptr<float>();
  RecordGradient(item, site, run, values, heads, keys);
  if (!edits) return;
  TransposeEdits(item, site, values, heads, keys);
  AtenAttention::HideFrom(item.rows, heads, {keys, keys, attention.config().layers[site.layer].window}, 0.0f,
                          values);
  gradient = ToDevice(host, attention.device()).permute({1, 0, 2}).contiguous();
}

}  // namespace

// Shapes: T rows, H heads in KV groups of G, Dh head size. A segment sees its own rows only.
AttentionTensors AttendBackward(AtenAttention& attention, const Batch::Item& item, int layer, int run,
                                const AttentionTensors& forward, const at::Tensor& z_gradient) {
  const ModelConfig& config = attention.config();
  const int64_t t = item.rows, kv = config.key_value_head_count, g = config.head_count / kv,
                dh = config.head_size;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dh));
  const bool passes = RunOf(item, run).rule != BackwardRule::kRelevance;
  const auto of_queries = [&](const at::Tensor& rows) {  // [KV, G * T, Dh]
    return rows.reshape({t, kv, g, dh}).permute({1, 2, 0, 3}).contiguous().view({kv, g * t, dh});
  };
  const auto of_keys = [&](const at::Tensor& rows) {  // [KV, T, Dh]
    return rows.reshape({t, kv, dh}).permute({1, 0, 2}).contiguous();
  };
  const auto transposed = [](const at::Tensor& x) { return x.permute({0, 2, 1}).contiguous(); };
  const auto back = [&](const at::Tensor& x, int64_t heads) {  // [T, heads * Dh]
    return x.view({heads, t, dh}).permute({1, 0, 2}).contiguous().view({t, heads * dh});
  };
  const at::Tensor query = of_queries(forward.query), key = of_keys(forward.key),
                   value = of_keys(forward.value), z = of_queries(z_gradient);

  at::Tensor scores = at::bmm(query, transposed(key)).mul_(scale).view({kv * g, t, t});
  if (t > 1) scores = scores.add(attention.Mask(t, t, t, config.layers[layer].window));
  attention.HookScores(item, {HookPoint::kAttnScores, layer}, -std::numeric_limits<float>::infinity(),
                       scores);
  const at::Tensor softmax = at::softmax(scores, 2);
  at::Tensor pattern = softmax;
  attention.HookScores(item, {HookPoint::kPattern, layer}, 0.0f, pattern);

  AttentionTensors gradients;
  gradients.value = back(at::bmm(transposed(pattern.view({kv, g * t, t})), z), kv);
  at::Tensor gradient = at::bmm(z, transposed(value)).view({kv * g, t, t});
  HookGradient(attention, item, {HookPoint::kPattern, layer}, run, gradient);
  if (passes) {
    gradient = softmax.mul(gradient.sub(softmax.mul(gradient).sum({2}, true)));
  } else {
    gradient = at::zeros_like(gradient);
  }
  HookGradient(attention, item, {HookPoint::kAttnScores, layer}, run, gradient);
  gradient = gradient.mul(scale).view({kv, g * t, t});
  gradients.query = back(at::bmm(gradient, key), kv * g);
  gradients.key = back(at::bmm(transposed(gradient), query), kv);
  return gradients;
}

}  // namespace mechinterp::engine
