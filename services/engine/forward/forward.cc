#include "services/engine/forward/forward.h"

#include <cstring>

#include "services/engine/forward/head.h"
#include "services/engine/forward/head_results.h"
#include "services/engine/forward/receiver_inputs.h"

namespace mechinterp::engine {

ForwardPass::ForwardPass(const Model& model, const Batch& batch, Arithmetic& arithmetic, Tape* tape)
    : model_(model),
      config_(model.config()),
      weights_(model.weights()),
      batch_(batch),
      math_(arithmetic),
      tape_(tape),
      steps_(config_, batch, arithmetic),
      norm_scales_(config_, batch, arithmetic),
      angles_(batch, weights_.rotary_frequencies) {}

bool ForwardPass::Run(absl::FunctionRef<bool()> abandoned) {
  const Rows residual = math_.Allocate(Slot::kResidual, batch_.row_count(), config_.d_model);
  math_.SetAngles(angles_.cosines, angles_.sines, config_.head_size / 2);
  Embed(residual);
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (abandoned()) return false;
    Block(layer, residual);
  }
  Enter({HookPoint::kResidPre, config_.layer_count()}, residual);
  if (!RunHead(model_, batch_, residual, norm_scales_, math_)) math_.Finish(residual);
  return true;
}

void ForwardPass::Rerun(int layer) {
  const int64_t n = batch_.row_count();
  const Rows residual{Slot::kResidual, 0, n, config_.d_model};
  math_.Copy(tape_->Of(Slot::kKeptEntering, layer), residual);
  const Rows z = math_.Allocate(Slot::kZ, n, config_.query_width());
  const Rows neurons = math_.Allocate(Slot::kNeurons, n, config_.d_ff);
  Attend(layer, residual, z);
  Activate(layer, residual, z, neurons);
}

// Updates the residual stream [N, D] in place: of the rows that have entered, a prefix, in
// each of the three parts.
void ForwardPass::Block(int layer, const Rows& residual) {
  const HookSite begin{HookPoint::kResidPre, layer}, attended{HookPoint::kZ, layer},
      activated{HookPoint::kMlpPost, layer};
  Enter(begin, residual);
  Keep(Slot::kKeptEntering, layer, residual);
  const int64_t count = batch_.RowsAt(activated);
  if (count == 0) return;
  const Rows neurons = math_.Allocate(Slot::kNeurons, count, config_.d_ff);  // [N, F]
  if (const int64_t n = batch_.RowsAt(attended); n > 0) {
    const Rows z = math_.Allocate(Slot::kZ, n, config_.query_width());  // [N, H * Dh]
    if (const int64_t rows = batch_.RowsAt(begin); rows > 0) {
      Attend(layer, residual.Part(0, rows), z.Part(0, rows));
    }
    Enter(attended, residual, &z);
    Activate(layer, residual.Part(0, n), z, neurons.Part(0, n));
  }
  Enter(activated, residual, &neurons);
  AddMlp(layer, residual.Part(0, count), neurons);
}

void ForwardPass::Attend(int layer, const Rows& residual, const Rows& z) {
  const LayerWeights& w = weights_.layers[layer];
  const int64_t n = residual.count;
  steps_.Hook(HookPoint::kResidPre, layer, residual);
  Keep(Slot::kKeptStream, layer, residual);

  const Rows attn_in =
      steps_.Normalize(residual, w.ln1_gain, HookPoint::kLn1Scale, HookPoint::kLn1Normalized, layer);
  norm_scales_.Keep({HookPoint::kLn1Scale, layer});
  steps_.Project(attn_in, {{&w.query, Slot::kQuery}, {&w.key, Slot::kKey}, {&w.value, Slot::kValue}});
  HookReceiverInputs(config_, batch_, layer, residual, w, steps_, math_);
  const Rows query{Slot::kQuery, 0, n, config_.query_width()};  // [N, H * Dh]
  const Rows key{Slot::kKey, 0, n, config_.key_value_width()};  // [N, KV * Dh]
  const Rows value{Slot::kValue, 0, n, config_.key_value_width()};
  steps_.Hook(HookPoint::kQ, layer, query);
  steps_.Hook(HookPoint::kK, layer, key);
  steps_.Hook(HookPoint::kV, layer, value);
  if (config_.layers[layer].query_key_norm) {
    Keep(Slot::kKeptQueryBeforeNorm, layer, query);
    Keep(Slot::kKeptKeyBeforeNorm, layer, key);
    steps_.NormalizeHeads(query, config_.head_count, w.query_norm_gain);
    steps_.NormalizeHeads(key, config_.key_value_head_count, w.key_norm_gain);
  }
  math_.Rotate(query, config_.head_count);
  math_.Rotate(key, config_.key_value_head_count);
  steps_.Hook(HookPoint::kRotQ, layer, query);
  steps_.Hook(HookPoint::kRotK, layer, key);
  Keep(Slot::kKeptQuery, layer, query);
  Keep(Slot::kKeptKey, layer, key);
  Keep(Slot::kKeptValue, layer, value);
  math_.Attend(batch_, layer, query, key, value, z);
}

// Adds attention to the residual stream; the MLP up to its neurons' activations.
void ForwardPass::Activate(int layer, const Rows& residual, const Rows& z, const Rows& neurons) {
  const LayerWeights& w = weights_.layers[layer];
  const int64_t n = residual.count;
  steps_.Hook(HookPoint::kZ, layer, z);
  const Rows attn_out = steps_.Project(z, w.output, Slot::kBlockOut);  // [N, D]
  HookHeadResults(config_, batch_, layer, z, w.output, attn_out, math_);
  steps_.Hook(HookPoint::kAttnOut, layer, attn_out);
  math_.Add(residual, attn_out);
  steps_.Hook(HookPoint::kResidMid, layer, residual);

  const Rows stream = steps_.HookCopy(HookPoint::kMlpIn, layer, residual);
  Keep(Slot::kKeptMlpStream, layer, stream);
  const Rows mlp_in =
      steps_.Normalize(stream, w.ln2_gain, HookPoint::kLn2Scale, HookPoint::kLn2Normalized, layer);
  norm_scales_.Keep({HookPoint::kLn2Scale, layer});
  steps_.Project(mlp_in, {{&w.gate, Slot::kGate}, {&w.up, Slot::kUp}});
  const Rows gate{Slot::kGate, 0, n, config_.d_ff};  // [N, F]
  const Rows up{Slot::kUp, 0, n, config_.d_ff};
  steps_.Hook(HookPoint::kMlpPre, layer, gate);
  steps_.Hook(HookPoint::kMlpPreLinear, layer, up);
  Keep(Slot::kKeptGate, layer, gate);
  Keep(Slot::kKeptUp, layer, up);
  math_.SiluMultiply(gate, up, neurons);
}

void ForwardPass::AddMlp(int layer, const Rows& residual, const Rows& neurons) {
  steps_.Hook(HookPoint::kMlpPost, layer, neurons);
  const Rows mlp_out = steps_.Project(neurons, weights_.layers[layer].down, Slot::kBlockOut);  // [N, D]
  steps_.Hook(HookPoint::kMlpOut, layer, mlp_out);
  math_.Add(residual, mlp_out);
  steps_.Hook(HookPoint::kResidPost, layer, residual);
}

// Token embeddings of the segments that start from tokens.
void ForwardPass::Embed(const Rows& residual) {
  math_.WriteRows(residual, [&](float* rows) {
    for (const Batch::Item& item : batch_.items()) {
      float* row = rows + item.first_row * config_.d_model;
      for (TokenId id : item.segment->tokens) {
        weights_.embedding.CopyRow(id, row);
        row += config_.d_model;
      }
    }
  });
  steps_.Hook(HookPoint::kEmbed, 0, residual);
}

// Puts the rows of segments that start at `site` from the residual stream and, within a
// block, from what is there of its branch.
void ForwardPass::Enter(const HookSite& site, const Rows& residual, const Rows* branch) {
  for (const Batch::Item& item : batch_.ItemsEntering(site)) {
    const Segment& segment = *item.segment;
    if (!segment.tokens.empty()) continue;
    Put(segment.residual, residual.Part(item.first_row, item.rows));
    if (branch != nullptr) Put(segment.branch, branch->Part(item.first_row, item.rows));
  }
}

void ForwardPass::Put(const HostTensor& from, const Rows& to) {
  math_.WriteRows(
      to, [&](float* rows) { std::memcpy(rows, from.values.data(), from.values.size() * sizeof(float)); });
}

}  // namespace mechinterp::engine
