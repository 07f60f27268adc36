#ifndef CLIENTS_LIB_ATTRIBUTION_READER_H_
#define CLIENTS_LIB_ATTRIBUTION_READER_H_

#include <optional>

#include "absl/status/status.h"
#include "clients/lib/activation_reader.h"
#include "clients/lib/model_client.h"
#include "mechinterp/v1/model_service.pb.h"

namespace mechinterp {

// Puts a RunAttribution stream together. Not thread-safe.
class AttributionReader {
 public:
  // DataLoss for what does not follow from what came before.
  absl::Status Add(v1::RunAttributionResponse& message);
  // How many pairs were announced, and how many have come whole.
  int pair_count() const { return static_cast<int>(run_.header.pair_count()); }
  int finished_pairs() const { return static_cast<int>(run_.pairs.size()); }
  // DataLoss when pairs, bytes of their tensors, or the summary did not come.
  absl::StatusOr<AttributionRun> Finish() &&;

 private:
  absl::Status BeginPair(v1::AttributedPair& pair);
  absl::Status EndPair();

  AttributionRun run_;
  std::optional<AttributionOfPair> pair_;  // that is being told of
  std::optional<ActivationReader> tensors_;
  bool ended_ = false;
};

}  // namespace mechinterp

#endif  // CLIENTS_LIB_ATTRIBUTION_READER_H_
