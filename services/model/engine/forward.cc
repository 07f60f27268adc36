#include "services/model/engine/forward.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/model/engine/attention.h"
#include "services/model/engine/batch.h"
#include "services/model/engine/kernels/kernels.h"
#include "services/model/engine/kernels/matrix.h"
#include "services/model/engine/weights.h"
#include "services/model/engine/workspace.h"

namespace mechinterp::engine {
namespace {

// One forward pass. Shapes: N rows in the pass, D d_model, H query heads, KV
// key/value heads, Dh head size, F d_ff, V vocabulary.
class Pass {
 public:
  Pass(const Model& model, const Batch& batch, Workspace& workspace)
      : config_(model.config()), weights_(model.weights()), batch_(batch), workspace_(workspace) {}

  void Run() {
    at::Tensor residual = workspace_.Rows(Workspace::kResidual, batch_.row_count(), config_.d_model);
    PrepareAngles();
    Embed(residual);
    for (int layer = 0; layer < config_.layer_count; ++layer) {
      Enter(layer, residual);
      if (const int64_t rows = batch_.RowsAt(layer); rows > 0) Block(layer, residual.narrow(0, 0, rows));
    }
    Enter(config_.layer_count, residual);
    Head(residual);
  }

 private:
  void Block(int layer, const at::Tensor& residual) {  // [N, D], updated in place
    const LayerWeights& w = weights_.layers[layer];
    Hook(HookPoint::kResidPre, layer, residual);

    const at::Tensor attn_in = Normalize(batch_, residual, w.ln1_gain, {HookPoint::kLn1Scale, layer},
                                         {HookPoint::kLn1Normalized, layer});
    const auto [query, key, value] = Products<3>(  // [N, H * Dh], [N, KV * Dh] twice
        attn_in,
        {{{w.query, Workspace::kQuery}, {w.key, Workspace::kKey}, {w.value, Workspace::kValue}}});
    Hook(HookPoint::kQ, layer, query);
    Hook(HookPoint::kK, layer, key);
    Hook(HookPoint::kV, layer, value);
    Rotate(query, config_.head_count);
    Rotate(key, config_.key_value_head_count);
    Hook(HookPoint::kRotQ, layer, query);
    Hook(HookPoint::kRotK, layer, key);
    const at::Tensor z = workspace_.Rows(Workspace::kZ, query.size(0), query.size(1));  // [N, H * Dh]
    Attend(config_, batch_, layer, query, key, value, z);
    Hook(HookPoint::kZ, layer, z);
    const at::Tensor attn_out = AttentionOutput(layer, z);  // [N, D]
    Hook(HookPoint::kAttnOut, layer, attn_out);
    Add(residual, attn_out);
    Hook(HookPoint::kResidMid, layer, residual);

    const at::Tensor mlp_in = Normalize(batch_, residual, w.ln2_gain, {HookPoint::kLn2Scale, layer},
                                        {HookPoint::kLn2Normalized, layer});
    const auto [gate, up] =  // [N, F] each
        Products<2>(mlp_in, {{{w.gate, Workspace::kGate}, {w.up, Workspace::kUp}}});
    Hook(HookPoint::kMlpPre, layer, gate);
    Hook(HookPoint::kMlpPreLinear, layer, up);
    const at::Tensor neurons = workspace_.Rows(Workspace::kNeurons, gate.size(0), gate.size(1));  // [N, F]
    kernels::SiluMultiply(gate.data_ptr<float>(), up.data_ptr<float>(), gate.numel(),
                          neurons.data_ptr<float>());
    Hook(HookPoint::kMlpPost, layer, neurons);
    const at::Tensor mlp_out = Product(w.down, neurons, Workspace::kBlockOut);  // [N, D]
    Hook(HookPoint::kMlpOut, layer, mlp_out);
    Add(residual, mlp_out);
    Hook(HookPoint::kResidPost, layer, residual);
  }

  struct Placed {
    const LinearWeight& w;
    Workspace::Slot slot;
  };
  // x w^T for each of the weights, in its slot's buffer.
  template <size_t kCount>
  std::array<at::Tensor, kCount> Products(const at::Tensor& x, const std::array<Placed, kCount>& placed) {
    std::array<at::Tensor, kCount> results;
    std::array<kernels::Product, kCount> products;
    for (size_t i = 0; i < kCount; ++i) {
      results[i] = workspace_.Rows(placed[i].slot, x.size(0), placed[i].w.out());
      products[i] = {&placed[i].w.matrix, results[i].template data_ptr<float>()};
    }
    kernels::MultiplyEach(x.data_ptr<float>(), x.size(0), products);
    return results;
  }
  at::Tensor Product(const LinearWeight& w, const at::Tensor& x, Workspace::Slot slot) {
    return Products<1>(x, {{{w, slot}}})[0];
  }

  void Hook(HookPoint point, int layer, const at::Tensor& values) {
    const SiteShape shape = ShapeOf(point, config_);
    batch_.Hook({point, layer}, values, shape.heads, shape.width);
  }

  static void Add(const at::Tensor& residual, const at::Tensor& delta) {
    kernels::AddInPlace(residual.data_ptr<float>(), delta.data_ptr<float>(), delta.numel());
  }

  // Token embeddings of the segments that start from tokens.
  void Embed(at::Tensor& residual) {
    for (const Batch::Item& item : batch_.items()) {
      float* row = residual.data_ptr<float>() + item.first_row * config_.d_model;
      for (TokenId id : item.segment->tokens) {
        weights_.embedding.CopyRow(id, row);
        row += config_.d_model;
      }
    }
    Hook(HookPoint::kEmbed, 0, residual);
  }

  // Puts the rows of segments that start from the residual stream at `layer`.
  void Enter(int layer, at::Tensor& residual) {
    for (const Batch::Item& item : batch_.items()) {
      const Segment& segment = *item.segment;
      if (segment.entry_layer != layer || !segment.tokens.empty()) continue;
      std::memcpy(residual.data_ptr<float>() + item.first_row * config_.d_model,
                  segment.residual.values.data(), segment.residual.values.size() * sizeof(float));
    }
  }

  // RMSNorm (Zhang & Sennrich 2019): x / rms(x) * gain, with hooks between.
  at::Tensor Normalize(const Batch& batch, const at::Tensor& x, const at::Tensor& gain,
                       const HookSite& scale_site, const HookSite& normalized_site) {
    const int64_t n = x.size(0), d = config_.d_model;
    const at::Tensor scale = workspace_.Rows(Workspace::kScale, n, 1);
    const at::Tensor normalized = workspace_.Rows(Workspace::kNormalized, n, d);
    kernels::RootMeanSquare(x.data_ptr<float>(), n, d, static_cast<float>(config_.rms_norm_epsilon),
                            scale.data_ptr<float>());
    batch.Hook(scale_site, scale, 1, 1);
    kernels::DivideRows(x.data_ptr<float>(), scale.data_ptr<float>(), n, d, normalized.data_ptr<float>());
    batch.Hook(normalized_site, normalized, 1, d);
    kernels::MultiplyColumns(normalized.data_ptr<float>(), gain.data_ptr<float>(), n, d,
                             normalized.data_ptr<float>());
    return normalized;
  }

  // Cosines and sines of the rotary angles of every row, the same in all layers:
  // [N, Dh / 2]. The angle is rounded to fp32 as the reference's is.
  void PrepareAngles() {
    const auto half = static_cast<int64_t>(weights_.rotary_frequencies.size());
    cosines_.resize(batch_.row_count() * half);
    sines_.resize(cosines_.size());
    for (const Batch::Item& item : batch_.items()) {
      for (int64_t i = 0; i < item.rows; ++i) {
        const auto position = static_cast<float>(item.segment->first_position + i);
        for (int64_t j = 0; j < half; ++j) {
          const double angle = position * weights_.rotary_frequencies[j];
          cosines_[(item.first_row + i) * half + j] = static_cast<float>(std::cos(angle));
          sines_[(item.first_row + i) * half + j] = static_cast<float>(std::sin(angle));
        }
      }
    }
  }

  void Rotate(const at::Tensor& rows, int64_t heads) {  // [N, heads * Dh], in place
    const int64_t half = config_.head_size / 2;
    for (int64_t i = 0; i < rows.size(0); ++i) {
      kernels::RotateRow(rows.data_ptr<float>() + i * heads * config_.head_size, heads, config_.head_size,
                         cosines_.data() + i * half, sines_.data() + i * half);
    }
  }

  // attn_out = z W_O. Where a hook wants each head's share of it, that is made
  // too; what an edit changes of it is added to attn_out, so that rows which no
  // edit touches keep their bits.
  at::Tensor AttentionOutput(int layer, const at::Tensor& z) {
    const at::Tensor out = Product(weights_.layers[layer].output, z, Workspace::kBlockOut);
    const HookSite site{HookPoint::kResult, layer};
    if (!batch_.Wants(site)) return out;
    for (const Batch::Item& item : batch_.ItemsAt(layer)) {
      if (!Batch::Wants(item, site)) continue;
      std::vector<float> result = HeadResults(layer, z, item);  // [T, H, D]
      const std::vector<float> before = result;
      Batch::EditItem(item, site, result.data(), config_.head_count, config_.d_model);
      Batch::CaptureItem(item, site, result.data(), config_.head_count, config_.d_model);
      if (Batch::Edits(item, site)) AddChange(before, result, item, out);
    }
    return out;
  }

  // Each head's share: the product with all other heads' z set to zero.
  std::vector<float> HeadResults(int layer, const at::Tensor& z, const Batch::Item& item) {
    const int64_t heads = config_.head_count, size = config_.head_size, d = config_.d_model;
    std::vector<float> result(item.rows * heads * d), alone(heads * heads * size);
    const float* row = z.data_ptr<float>() + item.first_row * heads * size;
    for (int64_t i = 0; i < item.rows; ++i, row += heads * size) {
      for (int64_t h = 0; h < heads; ++h) {
        std::copy(row + h * size, row + (h + 1) * size, alone.data() + (h * heads + h) * size);
      }
      kernels::Multiply(alone.data(), heads, weights_.layers[layer].output.matrix,
                        result.data() + i * heads * d);
    }
    return result;
  }

  void AddChange(const std::vector<float>& before, const std::vector<float>& after, const Batch::Item& item,
                 const at::Tensor& out) {
    const int64_t heads = config_.head_count, d = config_.d_model;
    for (int64_t i = 0; i < item.rows; ++i) {
      float* row = out.data_ptr<float>() + (item.first_row + i) * d;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (i * heads + h) * d;
        for (int64_t j = 0; j < d; ++j) row[j] += after[at + j] - before[at + j];
      }
    }
  }

  // Final norm and logits, of the rows that somebody reads.
  void Head(const at::Tensor& residual) {
    const Batch head = batch_.HeadRows();
    if (head.row_count() == 0) return;
    const at::Tensor rows = GatherRows(residual, head);
    const at::Tensor normalized = Normalize(head, rows, weights_.ln_final_gain, {HookPoint::kLnFinalScale, 0},
                                            {HookPoint::kLnFinalNormalized, 0});
    for (const Batch::Item& item : head.items()) {
      if (item.segment->logits_rows == LogitsRows::kNone) continue;
      HostTensor& logits = item.segment->logits;
      logits.shape = {WantedLogits(item), config_.vocabulary_size};
      logits.values.resize(logits.shape[0] *
                           logits.shape[1]);  // a segment that is used again allocates nothing
    }
    for (int64_t first = 0; first < head.row_count(); first += kHeadRowsAtATime) {
      const int64_t count = std::min(kHeadRowsAtATime, head.row_count() - first);
      const at::Tensor logits = Product(weights_.unembedding, normalized.narrow(0, first, count),
                                        Workspace::kLogits);  // [count, V]
      for (const Batch::Item& item : head.items()) FinishLogits(item, first, logits);
    }
  }

  static int64_t WantedLogits(const Batch::Item& item) {
    switch (item.segment->logits_rows) {
      case LogitsRows::kNone:
        return 0;
      case LogitsRows::kLast:
        return 1;
      case LogitsRows::kAll:
        break;
    }
    return item.rows;
  }

  // Hooks, then hands out those of an item's logits that are among rows
  // [first, first + count) of the head.
  void FinishLogits(const Batch::Item& item, int64_t first, const at::Tensor& logits) {
    const int64_t begin = std::max(first, item.first_row);
    const int64_t end = std::min(first + logits.size(0), item.first_row + item.rows);
    if (begin >= end) return;
    const int64_t width = config_.vocabulary_size;
    float* rows = logits.data_ptr<float>() + (begin - first) * width;
    const Batch::Item part{item.segment, begin, end - begin,
                           item.first_position + static_cast<int>(begin - item.first_row)};
    const HookSite site{HookPoint::kLogits, 0};
    if (Batch::Wants(part, site)) {
      Batch::EditItem(part, site, rows, 1, width);
      Batch::CaptureItem(part, site, rows, 1, width);
    }
    const int64_t first_wanted = std::max(begin, item.first_row + item.rows - WantedLogits(item));
    if (first_wanted >= end) return;
    const int64_t skipped = item.first_row + item.rows - WantedLogits(item);
    std::memcpy(item.segment->logits.values.data() + (first_wanted - skipped) * width,
                rows + (first_wanted - begin) * width, (end - first_wanted) * width * sizeof(float));
  }

  // `head` holds a suffix of each of some of the batch's items, in their order.
  at::Tensor GatherRows(const at::Tensor& residual, const Batch& head) {
    const at::Tensor rows = workspace_.Rows(Workspace::kHeadRows, head.row_count(), config_.d_model);
    auto item = batch_.items().begin();
    for (const Batch::Item& part : head.items()) {
      while (item->segment != part.segment) ++item;
      const int64_t skipped = item->rows - part.rows;
      std::memcpy(rows.data_ptr<float>() + part.first_row * config_.d_model,
                  residual.data_ptr<float>() + (item->first_row + skipped) * config_.d_model,
                  part.rows * config_.d_model * sizeof(float));
    }
    return rows;
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Batch& batch_;
  Workspace& workspace_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

}  // namespace

absl::Status Forward(const Model& model, absl::Span<Segment* const> segments) {
  const at::NoGradGuard no_grad;
  try {
    thread_local Workspace workspace;
    const Batch batch(segments);
    Pass(model, batch, workspace).Run();
    return absl::OkStatus();
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    return absl::InternalError(absl::StrCat("forward pass: ", error.what()));
  }
}

}  // namespace mechinterp::engine
