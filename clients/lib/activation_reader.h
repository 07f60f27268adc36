#ifndef CLIENTS_LIB_ACTIVATION_READER_H_
#define CLIENTS_LIB_ACTIVATION_READER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "clients/lib/model_client.h"
#include "mechinterp/v1/model_service.pb.h"

namespace mechinterp {

// Puts the chunks of a RunWithCache stream together. Not thread-safe.
class ActivationReader {
 public:
  // `stored`: the activations stay on the server; no chunks are expected.
  explicit ActivationReader(bool stored) : stored_(stored) {}

  // DataLoss when the header is not consistent.
  absl::Status Begin(const v1::RunHeader& header);
  // DataLoss for a chunk that lies outside its activation, or was damaged.
  absl::Status Add(const v1::ActivationChunk& chunk);
  absl::Status End(const v1::RunSummary& summary);
  // DataLoss when bytes, or the summary, did not come.
  absl::StatusOr<CachedRun> Finish() &&;

 private:
  bool stored_;
  bool ended_ = false;
  CachedRun run_;
  std::vector<uint64_t> received_bytes_;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_ACTIVATION_READER_H_
