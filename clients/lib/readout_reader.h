#ifndef CLIENTS_LIB_READOUT_READER_H_
#define CLIENTS_LIB_READOUT_READER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/lib/model_client.h"
#include "mechinterp/v1/model_service.pb.h"

namespace mechinterp {

// Puts a RunReadout stream together. Not thread-safe.
class ReadoutReader {
 public:
  // DataLoss for what does not follow from what came before.
  absl::Status Add(v1::RunReadoutResponse& message);
  // DataLoss when prompts or the summary did not come.
  absl::StatusOr<Readout> Finish() &&;

 private:
  absl::Status BeginPrompt(v1::ReadoutPrompt& prompt);
  absl::Status AddPiece(v1::ReadoutPiece& piece);

  Readout readout_;
  bool ended_ = false;
};

// A position of a prompt that was read out, with its token where it has text: 'position 3 ("my")'.
std::string PositionName(const v1::ReadoutPrompt& prompt, uint32_t position);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_READOUT_READER_H_
