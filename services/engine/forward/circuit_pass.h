#ifndef SERVICES_ENGINE_FORWARD_CIRCUIT_PASS_H_
#define SERVICES_ENGINE_FORWARD_CIRCUIT_PASS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "services/engine/forward/arithmetic.h"
#include "services/engine/forward/batch.h"
#include "services/engine/forward/circuit_plan.h"
#include "services/engine/forward/hooked_arithmetic.h"
#include "services/engine/forward/rotary_angles.h"
#include "services/engine/model.h"
#include "services/engine/weights/weights.h"

namespace mechinterp::engine {

// Takes a prompt through a circuit of the model (Segment::circuit), and computes nothing else: what a
// receiver reads is the source run's residual stream and, of each sender that it sees here, by how
// much that one's output differs from the source run's. Heads and MLPs that see no difference, or
// that nobody sees, are not computed. With all edges the logits are the prompt's own, with none the
// source's (MIB's edge-level interchange ablation; Mueller et al. 2025).
//
// For one segment, which begins at position 0 and has neither plan nor caches. Throws what the
// arithmetic does.
class CircuitPass {
 public:
  // All must outlive the pass.
  CircuitPass(const Model& model, Segment& segment, Arithmetic& arithmetic);

  // `abandoned` is asked between layers; false when it said so.
  bool Run(absl::FunctionRef<bool()> abandoned);

 private:
  // Receivers that see the same senders, and so read the same rows.
  struct Readers {
    Receiver::Kind kind;
    std::vector<int64_t> senders;  // those that differ from the source run
    std::vector<int> heads;        // ascending; {0} without a head axis
  };

  void Embed();
  void Attend(int layer);
  void AddMlp(int layer);
  void RunHead();

  // Of a layer's receivers of a kind, those that see any difference.
  void FindReaders(Receiver::Kind kind, int layer, std::vector<Readers>& found) const;
  std::vector<int64_t> SendersSeen(const Receiver& receiver) const;
  // What each of them reads, [T, D]: `site` of the source run, and the differences.
  std::vector<std::vector<float>> Streams(const HookSite& site, absl::Span<const Readers> readers) const;
  // Projects what readers of queries, keys or values read, to their heads' columns of `to`.
  void Project(const Readers& readers, const std::vector<float>& stream, int layer, const Rows& to);
  // The source run's values, as rows.
  Rows Put(HookPoint point, int layer, Slot slot);
  const std::vector<float>& Source(HookPoint point, int layer) const;
  bool IsSeen(const Sender& sender) const;
  void KeepChange(const Sender& sender, const Rows& rows);

  const Model& model_;
  const ModelConfig& config_;
  const CircuitPlan& plan_;
  Segment* const segment_;
  const Batch batch_;
  Arithmetic& math_;
  HookedArithmetic steps_;
  const RotaryAngles angles_;
  const int64_t length_;
  std::vector<bool> is_seen_;                // of each of Senders(): by anybody
  std::vector<std::vector<float>> changes_;  // of each of Senders() [T, D]; empty: none
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_CIRCUIT_PASS_H_
