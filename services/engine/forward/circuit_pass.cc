#include "services/engine/forward/circuit_pass.h"

#include <algorithm>
#include <map>
#include <utility>

#include "services/engine/forward/columns.h"
#include "services/engine/forward/head.h"
#include "services/engine/forward/head_results.h"
#include "services/engine/forward/norm_scales.h"
#include "services/engine/kernels/parallel.h"
#include "services/engine/kernels/rows.h"

namespace mechinterp::engine {
namespace {

// Which senders any receiver sees.
std::vector<bool> SeenByAny(const Circuit& circuit) {
  std::vector<bool> seen(circuit.sees.back().size());  // the last receiver comes after all of them
  for (const std::vector<bool>& row : circuit.sees) {
    for (size_t s = 0; s < row.size(); ++s) {
      if (row[s]) seen[s] = true;
    }
  }
  return seen;
}

// Sets all neurons of rows [count, width] but these to zero.
void KeepNeurons(const std::vector<int>& kept, int64_t count, int64_t width, float* rows) {
  std::vector<bool> is_kept(width);
  for (const int neuron : kept) is_kept[neuron] = true;
  for (int64_t i = 0; i < count * width; ++i) {
    if (!is_kept[i % width]) rows[i] = 0;
  }
}

}  // namespace

std::vector<HookSite> CircuitSourceSites(const ModelConfig& config) {
  std::vector<HookSite> sites = {{HookPoint::kEmbed, 0}};
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    for (const HookPoint point : {HookPoint::kResidPre, HookPoint::kQ, HookPoint::kK, HookPoint::kV,
                                  HookPoint::kZ, HookPoint::kResidMid, HookPoint::kMlpPost}) {
      sites.push_back({point, layer});
    }
  }
  sites.push_back({HookPoint::kResidPost, config.layer_count() - 1});
  return sites;
}

CircuitPass::CircuitPass(const Model& model, Segment& segment, Arithmetic& arithmetic)
    : model_(model),
      config_(model.config()),
      plan_(*segment.circuit),
      segment_(&segment),
      batch_(absl::MakeConstSpan(&segment_, 1)),
      math_(arithmetic),
      steps_(config_, batch_, arithmetic),
      angles_(batch_, model.weights().rotary_frequencies),
      length_(segment.length()),
      is_seen_(SeenByAny(plan_.circuit)),
      changes_(is_seen_.size()) {}

bool CircuitPass::Run(absl::FunctionRef<bool()> abandoned) {
  math_.SetAngles(angles_.cosines, angles_.sines, config_.head_size / 2);
  Embed();
  for (int layer = 0; layer < config_.layer_count(); ++layer) {
    if (abandoned()) return false;
    Attend(layer);
    AddMlp(layer);
  }
  RunHead();
  return true;
}

void CircuitPass::Embed() {
  const int64_t d = config_.d_model;
  if (!IsSeen({})) return;
  std::vector<float>& change = changes_[0];
  change.resize(length_ * d);
  for (int64_t t = 0; t < length_; ++t)
    model_.weights().embedding.CopyRow(segment_->tokens[t], change.data() + t * d);
  const std::vector<float>& source = Source(HookPoint::kEmbed, 0);
  for (size_t i = 0; i < change.size(); ++i) change[i] -= source[i];
}

// The heads that see a difference, or share a key or value that does, attend anew.
void CircuitPass::Attend(int layer) {
  std::vector<Readers> readers;
  for (const auto kind : {Receiver::Kind::kQuery, Receiver::Kind::kKey, Receiver::Kind::kValue}) {
    FindReaders(kind, layer, readers);
  }
  if (readers.empty()) return;
  const Rows query = Put(HookPoint::kQ, layer, Slot::kQuery);  // [T, H * Dh]
  const Rows key = Put(HookPoint::kK, layer, Slot::kKey);      // [T, KV * Dh]
  const Rows value = Put(HookPoint::kV, layer, Slot::kValue);
  const auto streams = Streams({HookPoint::kResidPre, layer}, readers);
  const int group = config_.head_count / config_.key_value_head_count;
  std::vector<bool> differs(config_.head_count);
  for (size_t i = 0; i < readers.size(); ++i) {
    const bool of_query = readers[i].kind == Receiver::Kind::kQuery;
    Project(readers[i], streams[i], layer,
            of_query                                  ? query
            : readers[i].kind == Receiver::Kind::kKey ? key
                                                      : value);
    for (const int head : readers[i].heads) {
      if (of_query) differs[head] = true;
      for (int h = head * group; !of_query && h < (head + 1) * group; ++h) differs[h] = true;
    }
  }
  const LayerWeights& w = model_.weights().layers[layer];
  if (config_.layers[layer].query_key_norm) {
    steps_.NormalizeHeads(query, config_.head_count, w.query_norm_gain);
    steps_.NormalizeHeads(key, config_.key_value_head_count, w.key_norm_gain);
  }
  math_.Rotate(query, config_.head_count);
  math_.Rotate(key, config_.key_value_head_count);
  const Rows z = math_.Allocate(Slot::kZ, length_, config_.query_width());
  math_.Attend(batch_, layer, query, key, value, z);
  math_.WithHostRows(z, [&](float* rows) {
    const std::vector<float>& source = Source(HookPoint::kZ, layer);
    for (int64_t i = 0; i < z.size(); ++i) rows[i] -= source[i];
    return true;
  });
  for (int head = 0; head < config_.head_count; ++head) {
    const Sender sender{Sender::Kind::kHead, layer, head};
    if (differs[head] && IsSeen(sender)) KeepChange(sender, HeadResult(config_, z, head, w.output, math_));
  }
}

void CircuitPass::AddMlp(int layer) {
  const Sender sender{Sender::Kind::kMlp, layer, 0};
  if (!IsSeen(sender)) return;
  std::vector<Readers> readers;
  FindReaders(Receiver::Kind::kMlp, layer, readers);
  if (readers.empty()) return;
  const LayerWeights& w = model_.weights().layers[layer];
  const auto streams = Streams({HookPoint::kResidMid, layer}, readers);
  const Rows stream = math_.Allocate(Slot::kReceiverInput, length_, config_.d_model);
  math_.WriteRows(stream, [&](float* rows) { std::copy(streams[0].begin(), streams[0].end(), rows); });
  const Rows normalized =
      steps_.Normalize(stream, w.ln2_gain, HookPoint::kLn2Scale, HookPoint::kLn2Normalized, layer);
  steps_.Project(normalized, {{&w.gate, Slot::kGate}, {&w.up, Slot::kUp}});
  const Rows neurons = math_.Allocate(Slot::kNeurons, length_, config_.d_ff);  // [T, F]
  math_.SiluMultiply({Slot::kGate, 0, length_, config_.d_ff}, {Slot::kUp, 0, length_, config_.d_ff}, neurons);
  const auto some = plan_.circuit.neurons.find(layer);
  math_.WithHostRows(neurons, [&](float* rows) {
    const std::vector<float>& source = Source(HookPoint::kMlpPost, layer);
    for (int64_t i = 0; i < neurons.size(); ++i) rows[i] -= source[i];
    if (some != plan_.circuit.neurons.end()) KeepNeurons(some->second, length_, config_.d_ff, rows);
    return true;
  });
  math_.Multiply(neurons, {{&w.down, Slot::kBlockOut}});
  KeepChange(sender, {Slot::kBlockOut, 0, length_, config_.d_model});
}

void CircuitPass::RunHead() {
  std::vector<Readers> readers;
  FindReaders(Receiver::Kind::kFinal, 0, readers);
  const HookSite site{HookPoint::kResidPost, config_.layer_count() - 1};
  const Rows residual = math_.Allocate(Slot::kResidual, length_, config_.d_model);
  math_.WriteRows(residual, [&](float* rows) {
    const std::vector<float> stream =
        readers.empty() ? Source(site.point, site.layer) : std::move(Streams(site, readers)[0]);
    std::copy(stream.begin(), stream.end(), rows);
  });
  // No norm of the blocks has read these rows: none is to blame for what is not finite.
  const NormScales norm_scales(config_, batch_, math_);
  math_.WriteRows({Slot::kNormScales, 0, 2 * config_.layer_count() * length_, 1},
                  [&](float* scales) { std::fill_n(scales, 2 * config_.layer_count() * length_, 1.0f); });
  engine::RunHead(model_, batch_, residual, norm_scales, math_);
}

void CircuitPass::FindReaders(Receiver::Kind kind, int layer, std::vector<Readers>& found) const {
  const int heads = ShapeOf(SiteOf(Receiver{kind, layer, 0}, config_).point, config_).heads;
  std::map<std::vector<int64_t>, Readers> distinct;
  for (int head = 0; head < heads; ++head) {
    std::vector<int64_t> senders = SendersSeen({kind, layer, head});
    if (senders.empty()) continue;
    Readers& readers = distinct[senders];
    readers.kind = kind;
    readers.senders = std::move(senders);
    readers.heads.push_back(head);
  }
  for (auto& [senders, readers] : distinct) found.push_back(std::move(readers));
}

std::vector<int64_t> CircuitPass::SendersSeen(const Receiver& receiver) const {
  const std::vector<bool>& sees = plan_.circuit.sees[IndexOf(receiver, config_)];
  std::vector<int64_t> senders;
  for (size_t s = 0; s < sees.size(); ++s) {
    if (sees[s] && !changes_[s].empty()) senders.push_back(static_cast<int64_t>(s));
  }
  return senders;
}

// Stretch by stretch, so that the differences, which are many times larger than the caches, are read
// from memory once for all readers.
std::vector<std::vector<float>> CircuitPass::Streams(const HookSite& site,
                                                     absl::Span<const Readers> readers) const {
  constexpr int64_t kStretch = 1 << 10;
  const std::vector<float>& source = Source(site.point, site.layer);
  std::vector<std::vector<float>> streams(readers.size(), source);
  kernels::ParallelFor(0, static_cast<int64_t>(source.size()), kStretch, [&](int64_t begin, int64_t end) {
    for (; begin < end; begin += kStretch) {
      const int64_t count = std::min(kStretch, end - begin);
      for (size_t i = 0; i < readers.size(); ++i) {
        for (const int64_t sender : readers[i].senders) {
          kernels::AddInPlace(streams[i].data() + begin, changes_[sender].data() + begin, count);
        }
      }
    }
  });
  return streams;
}

void CircuitPass::Project(const Readers& readers, const std::vector<float>& stream, int layer,
                          const Rows& to) {
  const LayerWeights& w = model_.weights().layers[layer];
  const LinearWeight& weight = readers.kind == Receiver::Kind::kQuery ? w.query
                               : readers.kind == Receiver::Kind::kKey ? w.key
                                                                      : w.value;
  const Rows own = math_.Allocate(Slot::kReceiverInput, length_, config_.d_model);
  math_.WriteRows(own, [&](float* rows) { std::copy(stream.begin(), stream.end(), rows); });
  const Rows normalized =
      steps_.Normalize(own, w.ln1_gain, HookPoint::kLn1Scale, HookPoint::kLn1Normalized, layer);
  // Neighbours at once.
  for (auto head = readers.heads.begin(); head != readers.heads.end();) {
    const int first = *head;
    int count = 0;
    while (head != readers.heads.end() && *head == first + count) ++head, ++count;
    const Rows of_heads = steps_.ProjectPart(normalized, weight, Slot::kHeadShare, first * config_.head_size,
                                             count * config_.head_size);
    PutColumns(of_heads, to, first * config_.head_size, math_);
  }
}

Rows CircuitPass::Put(HookPoint point, int layer, Slot slot) {
  const std::vector<float>& source = Source(point, layer);
  const Rows rows = math_.Allocate(slot, length_, ShapeOf(point, config_).size());
  math_.WriteRows(rows, [&](float* values) { std::copy(source.begin(), source.end(), values); });
  return rows;
}

const std::vector<float>& CircuitPass::Source(HookPoint point, int layer) const {
  return plan_.source->at({point, layer}).values.values;
}

bool CircuitPass::IsSeen(const Sender& sender) const { return is_seen_[IndexOf(sender, config_)]; }

void CircuitPass::KeepChange(const Sender& sender, const Rows& rows) {
  math_.WithHostRows(rows, [&](const float* values) {
    changes_[IndexOf(sender, config_)].assign(values, values + rows.size());
    return false;
  });
}

}  // namespace mechinterp::engine
