#ifndef SERVICES_MODEL_ATTRIBUTION_SCORES_H_
#define SERVICES_MODEL_ATTRIBUTION_SCORES_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/operations/attribution.h"
#include "services/model/served_model.h"
#include "services/rpc/call.h"

namespace mechinterp {

// One score's place among all: a tensor's element, or an edge by receiver and sender.
struct AttributionPlace {
  uint32_t part;
  uint32_t element;
  float score;
};

// Writes the messages of one RunAttribution stream: of each pair what the request asks to have
// returned. For one thread.
class AttributionWriter {
 public:
  // All must outlive it.
  AttributionWriter(ServedModel& served, const v1::RunAttributionRequest& request,
                    MessageWriter<v1::RunAttributionResponse>& writer)
      : served_(served), request_(request), writer_(writer) {}

  absl::Status WriteHeader();
  // `positions`: of the clean prompt, those that are returned.
  absl::Status WritePair(uint32_t index, const engine::AttributionRequest& pair,
                         const std::vector<int>& positions, engine::Attribution attribution);
  absl::Status WriteSummary(const v1::RunTimings& timings);

 private:
  // What is sent of one site.
  struct Part {
    engine::HookSite site;
    engine::HostTensor tensor;
  };
  std::vector<Part> PartsOf(const engine::AttributionRequest& pair, const std::vector<int>& positions,
                            engine::Attribution& attribution) const;
  absl::Status WriteTensors(const std::vector<Part>& parts);
  // Messages of at most 1 MiB, of what `add` makes of each.
  absl::Status WriteInPieces(
      const std::vector<AttributionPlace>& places,
      absl::FunctionRef<void(const AttributionPlace& place, v1::AttributionScores& scores)> add);
  absl::Status WriteLargest(const std::vector<Part>& parts, const std::vector<int>& positions);
  absl::Status WriteLargestEdges(const std::vector<std::vector<float>>& scores);

  ServedModel& served_;
  const v1::RunAttributionRequest& request_;
  MessageWriter<v1::RunAttributionResponse>& writer_;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_ATTRIBUTION_SCORES_H_
