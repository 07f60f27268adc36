#include "services/engine/forward/forward.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/engine/device/device.h"
#include "services/engine/device/released_tensors.h"
#include "services/engine/forward/aten_arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/cpu_arithmetic.h"
#include "services/engine/forward/kv_cache.h"
#include "services/engine/weights/pass_scratch.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {
namespace {

// One forward pass. Shapes: N rows in the pass, D d_model, H query heads, KV
// key/value heads, Dh head size, F d_ff, V vocabulary.
class Pass {
 public:
  Pass(const Model& model, const Batch& batch, Arithmetic& arithmetic)
      : config_(model.config()), weights_(model.weights()), batch_(batch), math_(arithmetic) {}

  // False when it was abandoned.
  bool Run(absl::FunctionRef<bool()> abandoned) {
    const Rows residual = math_.Take(Slot::kResidual, batch_.row_count(), config_.d_model);
    PrepareAngles();
    Embed(residual);
    for (int layer = 0; layer < config_.layer_count; ++layer) {
      if (abandoned()) return false;
      Block(layer, residual);
    }
    Enter({HookPoint::kResidPre, config_.layer_count}, residual);
    if (!Head(residual)) math_.Finish(residual);
    return true;
  }

 private:
  // Updates the residual stream [N, D] in place: of the rows that have entered, a prefix, in
  // each of the three parts.
  void Block(int layer, const Rows& residual) {
    const HookSite begin{HookPoint::kResidPre, layer}, attended{HookPoint::kZ, layer},
        activated{HookPoint::kMlpPost, layer};
    Enter(begin, residual);
    const int64_t count = batch_.RowsAt(activated);
    if (count == 0) return;
    const Rows neurons = math_.Take(Slot::kNeurons, count, config_.d_ff);  // [N, F]
    if (const int64_t n = batch_.RowsAt(attended); n > 0) {
      const Rows z = math_.Take(Slot::kZ, n, config_.query_width());  // [N, H * Dh]
      if (const int64_t rows = batch_.RowsAt(begin); rows > 0) {
        Attend(layer, residual.Part(0, rows), z.Part(0, rows));
      }
      Enter(attended, residual, &z);
      Activate(layer, residual.Part(0, n), z, neurons.Part(0, n));
    }
    Enter(activated, residual, &neurons);
    AddMlp(layer, residual.Part(0, count), neurons);
  }

  void Attend(int layer, const Rows& residual, const Rows& z) {
    const LayerWeights& w = weights_.layers[layer];
    const int64_t n = residual.count;
    Hook(HookPoint::kResidPre, layer, residual);

    const Rows attn_in = Normalize(batch_, residual, w.ln1_gain, {HookPoint::kLn1Scale, layer},
                                   {HookPoint::kLn1Normalized, layer});
    math_.Multiply(attn_in, {{&w.query, Slot::kQuery}, {&w.key, Slot::kKey}, {&w.value, Slot::kValue}});
    const Rows query{Slot::kQuery, 0, n, config_.query_width()};  // [N, H * Dh]
    const Rows key{Slot::kKey, 0, n, config_.key_value_width()};  // [N, KV * Dh]
    const Rows value{Slot::kValue, 0, n, config_.key_value_width()};
    Hook(HookPoint::kQ, layer, query);
    Hook(HookPoint::kK, layer, key);
    Hook(HookPoint::kV, layer, value);
    math_.Rotate(query, config_.head_count);
    math_.Rotate(key, config_.key_value_head_count);
    Hook(HookPoint::kRotQ, layer, query);
    Hook(HookPoint::kRotK, layer, key);
    math_.Attend(batch_, layer, query, key, value, z);
  }

  // Adds attention to the residual stream; the MLP up to its neurons' activations.
  void Activate(int layer, const Rows& residual, const Rows& z, const Rows& neurons) {
    const LayerWeights& w = weights_.layers[layer];
    const int64_t n = residual.count;
    Hook(HookPoint::kZ, layer, z);
    const Rows attn_out = AttentionOutput(layer, z);  // [N, D]
    Hook(HookPoint::kAttnOut, layer, attn_out);
    math_.Add(residual, attn_out);
    Hook(HookPoint::kResidMid, layer, residual);

    const Rows mlp_in = Normalize(batch_, residual, w.ln2_gain, {HookPoint::kLn2Scale, layer},
                                  {HookPoint::kLn2Normalized, layer});
    math_.Multiply(mlp_in, {{&w.gate, Slot::kGate}, {&w.up, Slot::kUp}});
    const Rows gate{Slot::kGate, 0, n, config_.d_ff};  // [N, F]
    const Rows up{Slot::kUp, 0, n, config_.d_ff};
    Hook(HookPoint::kMlpPre, layer, gate);
    Hook(HookPoint::kMlpPreLinear, layer, up);
    math_.SiluMultiply(gate, up, neurons);
  }

  void AddMlp(int layer, const Rows& residual, const Rows& neurons) {
    Hook(HookPoint::kMlpPost, layer, neurons);
    const Rows mlp_out = Multiply(neurons, weights_.layers[layer].down, Slot::kBlockOut);  // [N, D]
    Hook(HookPoint::kMlpOut, layer, mlp_out);
    math_.Add(residual, mlp_out);
    Hook(HookPoint::kResidPost, layer, residual);
  }

  Rows Multiply(const Rows& x, const LinearWeight& weight, Slot slot) {
    math_.Multiply(x, {{&weight, slot}});
    return {slot, 0, x.count, weight.out()};
  }

  void Hook(HookPoint point, int layer, const Rows& values) {
    const SiteShape shape = ShapeOf(point, config_);
    Hook(batch_, {point, layer}, values, shape.heads, shape.width);
  }

  void Hook(const Batch& batch, const HookSite& site, const Rows& values, int64_t heads, int64_t width) {
    batch.Hook(site, heads, width, [&](int64_t first, int64_t count, Batch::Changes function) {
      math_.Look(values.Part(first, count), function);
    });
  }

  // Token embeddings of the segments that start from tokens.
  void Embed(const Rows& residual) {
    math_.Fill(residual, [&](float* rows) {
      for (const Batch::Item& item : batch_.items()) {
        float* row = rows + item.first_row * config_.d_model;
        for (TokenId id : item.segment->tokens) {
          weights_.embedding.CopyRow(id, row);
          row += config_.d_model;
        }
      }
    });
    Hook(HookPoint::kEmbed, 0, residual);
  }

  // Puts the rows of segments that start at `site` from the residual stream and, within a
  // block, from what is there of its branch.
  void Enter(const HookSite& site, const Rows& residual, const Rows* branch = nullptr) {
    for (const Batch::Item& item : batch_.ItemsEntering(site)) {
      const Segment& segment = *item.segment;
      if (!segment.tokens.empty()) continue;
      Put(segment.residual, residual.Part(item.first_row, item.rows));
      if (branch != nullptr) Put(segment.branch, branch->Part(item.first_row, item.rows));
    }
  }

  void Put(const HostTensor& from, const Rows& to) {
    math_.Fill(
        to, [&](float* rows) { std::memcpy(rows, from.values.data(), from.values.size() * sizeof(float)); });
  }

  // RMSNorm (Zhang & Sennrich 2019): x / rms(x) * gain, with hooks between.
  Rows Normalize(const Batch& batch, const Rows& x, const at::Tensor& gain, const HookSite& scale_site,
                 const HookSite& normalized_site) {
    const Rows scale = math_.Take(Slot::kScale, x.count, 1);
    math_.RootMeanSquare(x, static_cast<float>(config_.rms_norm_epsilon), scale);
    Hook(batch, scale_site, scale, 1, 1);
    const Rows normalized = math_.Take(Slot::kNormalized, x.count, x.width);
    math_.DivideRows(x, scale, normalized);
    Hook(batch, normalized_site, normalized, 1, x.width);
    math_.MultiplyColumns(normalized, gain);
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
    math_.SetAngles(cosines_, sines_, half);
  }

  // attn_out = z W_O. Where a hook wants each head's share of it, that is made
  // too; what an edit changes of it is added to attn_out, so that rows which no
  // edit touches keep their bits.
  Rows AttentionOutput(int layer, const Rows& z) {
    const Rows out = Multiply(z, weights_.layers[layer].output, Slot::kBlockOut);
    const HookSite site{HookPoint::kResult, layer};
    if (!batch_.Wants(site)) return out;
    for (const Batch::Item& item : batch_.ItemsAt({HookPoint::kZ, layer})) {
      if (!Batch::Wants(item, site)) continue;
      std::vector<float> result = HeadResults(layer, z.Part(item.first_row, item.rows));  // [T, H, D]
      const std::vector<float> before = result;
      Batch::EditItem(item, site, result.data(), config_.head_count, config_.d_model);
      Batch::CaptureItem(item, site, result.data(), config_.head_count, config_.d_model);
      if (!Batch::Edits(item, site)) continue;
      math_.Look(out.Part(item.first_row, item.rows), [&](float* rows) {
        AddChange(before, result, item.rows, rows);
        return true;
      });
    }
    return out;
  }

  // Each head's share: the product with all other heads' z set to zero.
  std::vector<float> HeadResults(int layer, const Rows& z) {
    const int64_t heads = config_.head_count, size = config_.head_size, d = config_.d_model;
    std::vector<float> result(z.count * heads * d);
    std::vector<float> row(z.width);
    for (int64_t i = 0; i < z.count; ++i) {
      math_.Look(z.Part(i, 1), [&](float* values) {
        std::copy(values, values + z.width, row.begin());
        return false;
      });
      const Rows alone = math_.Take(Slot::kHeadAlone, heads, z.width);
      math_.Fill(alone, [&](float* rows) {
        std::fill(rows, rows + alone.size(), 0.0f);
        for (int64_t h = 0; h < heads; ++h) {
          std::copy_n(row.begin() + h * size, size, rows + (h * heads + h) * size);
        }
      });
      const Rows shares = Multiply(alone, weights_.layers[layer].output, Slot::kHeadShare);  // [H, D]
      math_.Look(shares, [&](float* values) {
        std::copy(values, values + shares.size(), result.begin() + i * heads * d);
        return false;
      });
    }
    return result;
  }

  void AddChange(const std::vector<float>& before, const std::vector<float>& after, int64_t count,
                 float* rows) {
    const int64_t heads = config_.head_count, d = config_.d_model;
    for (int64_t i = 0; i < count; ++i, rows += d) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (i * heads + h) * d;
        for (int64_t j = 0; j < d; ++j) rows[j] += after[at + j] - before[at + j];
      }
    }
  }

  // Final norm and logits, of the rows that somebody reads; false when nobody does.
  bool Head(const Rows& residual) {
    const Batch head = batch_.HeadRows();
    if (head.row_count() == 0) return false;
    const Rows normalized = Normalize(head, GatherRows(residual, head), weights_.ln_final_gain,
                                      {HookPoint::kLnFinalScale, 0}, {HookPoint::kLnFinalNormalized, 0});
    for (const Batch::Item& item : head.items()) {
      if (item.segment->logits_rows == LogitsRows::kNone) continue;
      HostTensor& logits = item.segment->logits;
      logits.shape = {WantedLogits(item), config_.vocabulary_size};
      logits.values.resize(logits.shape[0] *
                           logits.shape[1]);  // a segment that is used again allocates nothing
    }
    for (int64_t first = 0; first < head.row_count(); first += kHeadRowsPerBlock) {
      const int64_t count = std::min(kHeadRowsPerBlock, head.row_count() - first);
      const Rows logits = Multiply(normalized.Part(first, count), weights_.unembedding, Slot::kLogits);
      math_.Look(logits, [&](float* rows) {  // [count, V]
        for (const Batch::Item& item : head.items()) FinishLogits(item, first, count, rows);
        return false;  // nothing reads them after this
      });
    }
    return true;
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
  void FinishLogits(const Batch::Item& item, int64_t first, int64_t count, float* logits) {
    const int64_t begin = std::max(first, item.first_row);
    const int64_t end = std::min(first + count, item.first_row + item.rows);
    if (begin >= end) return;
    const int64_t width = config_.vocabulary_size;
    float* rows = logits + (begin - first) * width;
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
  Rows GatherRows(const Rows& residual, const Batch& head) {
    const Rows rows = math_.Take(Slot::kHeadRows, head.row_count(), config_.d_model);
    auto item = batch_.items().begin();
    for (const Batch::Item& part : head.items()) {
      while (item->segment != part.segment) ++item;
      const int64_t skipped = item->rows - part.rows;
      math_.Copy(residual.Part(item->first_row + skipped, part.rows), rows.Part(part.first_row, part.rows));
    }
    return rows;
  }

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Batch& batch_;
  Arithmetic& math_;
  std::vector<float> cosines_;
  std::vector<float> sines_;
};

bool RunPass(const Model& model, const Batch& batch, absl::FunctionRef<bool()> abandoned) {
  if (!model.device().UsesLibtorch()) {
    thread_local CpuArithmetic arithmetic;
    arithmetic.set_config(&model.config());
    return Pass(model, batch, arithmetic).Run(abandoned);
  }
  ReleaseNow();
  try {
    bool finished;
    {
      AtenArithmetic arithmetic(model);
      finished = Pass(model, batch, arithmetic).Run(abandoned);
    }
    TendMemory(model.device());
    return finished;
  } catch (const std::exception&) {
    TendMemory(model.device(), /*release_all=*/true);
    throw;
  }
}

// Takes back what a pass that failed has left in a segment.
void Restore(Segment& segment) {
  if (segment.cache != nullptr) segment.cache->Truncate(segment.first_position - segment.shared_length);
  for (auto& [site, recorded] : segment.activations) {
    auto begin =
        std::lower_bound(recorded.positions.begin(), recorded.positions.end(), segment.first_position);
    recorded.positions.erase(begin, recorded.positions.end());
    if (recorded.values.shape.empty()) continue;
    recorded.values.shape[0] = static_cast<int64_t>(recorded.positions.size());
    recorded.values.values.resize(ElementCount(recorded.values.shape));
  }
}

// libtorch's own errors know only their text, and that with a stack.
absl::Status ToStatus(const std::exception& error) {
  const std::string text(absl::StripTrailingAsciiWhitespace(
      std::string(error.what()).substr(0, std::string(error.what()).find("\nException raised from"))));
  const std::string lower = absl::AsciiStrToLower(text);
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr || absl::StrContains(lower, "out of memory") ||
      absl::StrContains(lower, "can't allocate memory") || absl::StrContains(lower, "insufficient memory") ||
      absl::StrContains(lower, "outofmemory")) {
    return absl::ResourceExhaustedError(absl::StrCat("forward pass: the device is out of memory: ", text));
  }
  return absl::InternalError(absl::StrCat("forward pass: ", text));
}

}  // namespace

absl::Status Forward(const Model& model, absl::Span<Segment* const> segments,
                     absl::FunctionRef<bool()> abandoned) {
  const at::NoGradGuard no_grad;
  absl::Status status;
  try {
    const Batch batch(segments);
    if (RunPass(model, batch, abandoned)) return status;
    status = absl::CancelledError("forward pass: nobody waits for it any more");
  } catch (const std::exception& error) {  // c10::Error and std::bad_alloc
    status = ToStatus(error);
  }
  for (Segment* segment : segments) Restore(*segment);
  return status;
}

}  // namespace mechinterp::engine
