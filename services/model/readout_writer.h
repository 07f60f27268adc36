#ifndef SERVICES_MODEL_READOUT_WRITER_H_
#define SERVICES_MODEL_READOUT_WRITER_H_

#include <cstddef>
#include <cstdint>

#include "mechinterp/v1/model_service.pb.h"
#include "services/engine/operations/direct_attribution.h"
#include "services/engine/operations/logit_lens.h"
#include "services/model/served_model.h"
#include "services/rpc/call.h"

namespace mechinterp {

// Writes the messages of one RunReadout stream: readings and contributions in pieces of at most
// 1 MiB. For one thread. Cancelled when nobody reads any longer.
class ReadoutWriter {
 public:
  // Both must outlive it.
  ReadoutWriter(ServedModel& served, MessageWriter<v1::RunReadoutResponse>& writer)
      : served_(served), writer_(writer) {}

  absl::Status WriteHeader(uint32_t prompt_count);
  absl::Status WritePrompt(uint32_t index, const engine::TokenizedPrompt& prompt);
  absl::Status WriteReading(const engine::LensReading& reading);
  absl::Status WriteAttribution(const engine::DirectAttribution& attribution);
  absl::Status WriteSummary(const v1::RunTimings& timings);

 private:
  absl::Status AddToPiece(const v1::ReadoutPiece& part);
  // Writes what is still kept of a piece, then the message.
  absl::Status Write(const v1::RunReadoutResponse& message);
  absl::Status Flush();

  ServedModel& served_;
  MessageWriter<v1::RunReadoutResponse>& writer_;
  v1::RunReadoutResponse kept_;  // a piece that more may go into
  size_t kept_bytes_ = 0;
};

}  // namespace mechinterp

#endif  // SERVICES_MODEL_READOUT_WRITER_H_
