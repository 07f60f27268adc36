#include "services/engine/forward/tape.h"

#include <algorithm>
#include <vector>

namespace mechinterp::engine {
namespace {

constexpr Slot kKept[] = {
    Slot::kKeptStream, Slot::kKeptQueryBeforeNorm, Slot::kKeptKeyBeforeNorm, Slot::kKeptQuery, Slot::kKeptKey,
    Slot::kKeptValue,  Slot::kKeptMlpStream,       Slot::kKeptGate,          Slot::kKeptUp};

bool HasHeadNorms(const ModelConfig& config) {
  return std::any_of(config.layers.begin(), config.layers.end(),
                     [](const LayerConfig& layer) { return layer.query_key_norm; });
}

// 0: this model has no such thing.
int64_t Width(const ModelConfig& config, Slot slot) {
  switch (slot) {
    case Slot::kKeptQuery:
      return config.query_width();
    case Slot::kKeptKey:
    case Slot::kKeptValue:
      return config.key_value_width();
    case Slot::kKeptQueryBeforeNorm:
      return HasHeadNorms(config) ? config.query_width() : 0;
    case Slot::kKeptKeyBeforeNorm:
      return HasHeadNorms(config) ? config.key_value_width() : 0;
    case Slot::kKeptGate:
    case Slot::kKeptUp:
      return config.d_ff;
    default:
      return config.d_model;
  }
}

}  // namespace

Tape::Tape(const ModelConfig& config, int64_t rows, bool keeps_all_layers, Arithmetic& arithmetic)
    : config_(config), rows_(rows), keeps_all_layers_(keeps_all_layers), math_(arithmetic) {
  for (const Slot slot : kKept) {
    if (const int64_t width = Width(config, slot); width > 0) {
      math_.Allocate(slot, keeps_all_layers_ ? rows * config.layer_count() : rows, width);
    }
  }
  if (!keeps_all_layers_) math_.Allocate(Slot::kKeptEntering, rows * config.layer_count(), config.d_model);
}

Tape::~Tape() {
  for (const Slot slot : kKept) math_.Free(slot);
  math_.Free(Slot::kKeptEntering);
}

void Tape::Keep(Slot slot, int layer, const Rows& rows) {
  if (slot == Slot::kKeptEntering && keeps_all_layers_) return;
  math_.Copy(rows, Of(slot, layer));
}

Rows Tape::Of(Slot slot, int layer) const {
  return {slot, IsKeptOfAll(slot) ? layer * rows_ : 0, rows_, Width(config_, slot)};
}

int64_t TapeBytes(const ModelConfig& config, int64_t rows, bool keeps_all_layers) {
  int64_t layer = 0;
  for (const Slot slot : kKept) layer += Width(config, slot);
  const int64_t all = keeps_all_layers ? layer * config.layer_count()
                                       : layer + int64_t{config.d_model} * config.layer_count();
  return rows * all * static_cast<int64_t>(sizeof(float));
}

}  // namespace mechinterp::engine
