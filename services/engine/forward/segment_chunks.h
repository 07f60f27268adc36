#ifndef SERVICES_ENGINE_FORWARD_SEGMENT_CHUNKS_H_
#define SERVICES_ENGINE_FORWARD_SEGMENT_CHUNKS_H_

#include <memory>

#include "services/engine/checkpoint/model_config.h"
#include "services/engine/forward/segment.h"

namespace mechinterp::engine {

// Takes a segment through the model in chunks of its rows, one forward pass each,
// so that a long prompt does not hold up everybody else for its whole length.
// The chunks share one cache. Results are bit-identical to one pass over the
// whole segment: every row sees the same keys in the same order, edits and
// captures go by absolute position, and no kernel's order of additions depends on
// the number of rows.
//
//   SegmentChunks chunks(&segment, config);
//   while (chunks.rows_left() > 0) {
//     <run chunks.Next(rows)>;
//     chunks.Collect();
//   }
//
// One thread at a time.
class SegmentChunks {
 public:
  // `segment` must stay where it is until the last chunk is collected, and keep
  // its inputs.
  SegmentChunks(Segment* segment, const ModelConfig& config) : whole_(segment), config_(&config) {}

  int rows_left() const { return whole_->length() - done_; }

  // Whether it may run in more than one chunk. Not when gradients are wanted of it, nor through a circuit.
  bool CanSplit() const { return whole_->gradient == nullptr && whole_->circuit == nullptr; }

  // The next `rows` rows, at least one and at most rows_left(); all of them where
  // it cannot split. Valid until Collect or TakeBack.
  Segment* Next(int rows);

  // Takes over what the chunk recorded. Call once it ran.
  void Collect();

  // Takes the chunk back, as it was, when its pass failed; Next gives those rows again.
  void TakeBack();

 private:
  Segment* whole_;
  const ModelConfig* config_;
  int done_ = 0;                    // rows of chunks collected
  int chunk_rows_ = 0;              // of the chunk that is out
  std::unique_ptr<Segment> chunk_;  // null: the segment itself is the chunk
  std::shared_ptr<KvCache> cache_;  // of the chunks, where nobody else wants one
};

}  // namespace mechinterp::engine

#endif  // SERVICES_ENGINE_FORWARD_SEGMENT_CHUNKS_H_
