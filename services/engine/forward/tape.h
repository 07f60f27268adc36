#ifndef SERVICES_ENGINE_FORWARD_TAPE_H_
#define SERVICES_ENGINE_FORWARD_TAPE_H_

#include <cstdint>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/arithmetic.h"

namespace mechinterp::engine {

// What a backward pass reads of the forward pass before it, in the arithmetic's kept slots: of
// every layer, where that fits the memory; else only what entered each block, and the rest of one
// layer at a time, which ForwardPass::Rerun makes again. Values are as the next step read them,
// after edits. For one pass; gives the slots' memory back when it ends.
class Tape {
 public:
  // Of a pass of `rows` rows, [N, width] each.
  Tape(const ModelConfig& config, int64_t rows, bool keeps_all_layers, Arithmetic& arithmetic);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape();

  bool keeps_all_layers() const { return keeps_all_layers_; }

  // Copies rows, all of the pass's, to a kept slot.
  void Keep(Slot slot, int layer, const Rows& rows);
  // What Keep was given last, of this layer.
  Rows Of(Slot slot, int layer) const;

 private:
  bool IsKeptOfAll(Slot slot) const { return keeps_all_layers_ || slot == Slot::kKeptEntering; }

  const ModelConfig& config_;
  const int64_t rows_;
  const bool keeps_all_layers_;
  Arithmetic& math_;
};

// Bytes of a tape.
int64_t TapeBytes(const ModelConfig& config, int64_t rows, bool keeps_all_layers);

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_TAPE_H_
