#include "services/engine/forward/head_results.h"

#include <algorithm>
#include <vector>

#include "services/engine/forward/columns.h"
#include "services/engine/forward/gradient_hooks.h"

namespace mechinterp::engine {
namespace {

// [T, H, D].
std::vector<float> HeadResults(const ModelConfig& config, const Rows& z, const LinearWeight& output,
                               Arithmetic& math) {
  std::vector<float> results(z.count * config.head_count * config.d_model);
  for (int head = 0; head < config.head_count; ++head) {
    GetHead(HeadResult(config, z, head, output, math), config.head_count, head, results, math);
  }
  return results;
}

// rows [T, D] += sum over heads of after - before, both [T, H, D].
void AddChange(const ModelConfig& config, const std::vector<float>& before, const std::vector<float>& after,
               int64_t count, float* rows) {
  const int64_t heads = config.head_count, d = config.d_model;
  for (int64_t i = 0; i < count; ++i, rows += d) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (i * heads + h) * d;
      for (int64_t j = 0; j < d; ++j) rows[j] += after[at + j] - before[at + j];
    }
  }
}

}  // namespace

Rows HeadResult(const ModelConfig& config, const Rows& z, int head, const LinearWeight& output,
                Arithmetic& math) {
  const Rows alone = math.Allocate(Slot::kHeadAlone, z.count, config.head_size);
  GetColumns(z, int64_t{head} * config.head_size, alone, math);
  math.MultiplyInputs(alone, output, int64_t{head} * config.head_size, Slot::kHeadShare);
  return {Slot::kHeadShare, 0, z.count, config.d_model};
}

void HookHeadResults(const ModelConfig& config, const Batch& batch, int layer, const Rows& z,
                     const LinearWeight& output, const Rows& attn_out, Arithmetic& math) {
  const HookSite site{HookPoint::kResult, layer};
  if (!batch.Wants(site)) return;
  for (const Batch::Item& item : batch.ItemsAt({HookPoint::kZ, layer})) {
    if (!Batch::Wants(item, site)) continue;
    std::vector<float> result = HeadResults(config, z.Part(item.first_row, item.rows), output, math);
    const std::vector<float> before = result;
    Batch::EditItem(item, site, result.data(), config.head_count, config.d_model);
    Batch::CaptureItem(item, site, result.data(), config.head_count, config.d_model);
    if (!Batch::Edits(item, site)) continue;
    math.WithHostRows(attn_out.Part(item.first_row, item.rows), [&](float* rows) {
      AddChange(config, before, result, item.rows, rows);
      return true;
    });
  }
}

void HookHeadResultGradients(const ModelConfig& config, const Batch& batch, int layer, int run,
                             const LinearWeight& output, const Rows& attn_out_gradient,
                             const Rows& z_gradient, Arithmetic& math) {
  const HookSite site{HookPoint::kResult, layer};
  const int64_t heads = config.head_count, size = config.head_size, d = config.d_model;
  for (const Batch::Item& item : batch.items()) {
    if (!Batch::Edits(item, site) && !WantsGradient(item, site)) continue;
    std::vector<float> gradient =
        RepeatForHeads(attn_out_gradient.Part(item.first_row, item.rows), heads, math);  // [T, H, D]
    RecordGradient(item, site, run, gradient.data(), heads, d);
    TransposeEdits(item, site, gradient.data(), heads, d);
    for (const int head : Batch::EditedHeads(item, site)) {
      const Rows share = math.Allocate(Slot::kHeadShare, item.rows, d);
      PutHead(gradient, heads, head, share, math);
      const Rows all = math.Allocate(Slot::kHeadAlone, item.rows, z_gradient.width);
      math.MultiplyTransposed({{&output, share}}, all);
      const Rows of_head = math.Allocate(Slot::kReceiverInput, item.rows, size);
      GetColumns(all, head * size, of_head, math);
      PutColumns(of_head, z_gradient.Part(item.first_row, item.rows), head * size, math);
    }
  }
}

}  // namespace mechinterp::engine
