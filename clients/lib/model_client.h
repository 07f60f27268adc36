#ifndef CLIENTS_LIB_MODEL_CLIENT_H_
#define CLIENTS_LIB_MODEL_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/lib/retry.h"
#include "grpcpp/grpcpp.h"
#include "mechinterp/v1/model_service.grpc.pb.h"

namespace mechinterp {

struct ModelClientOptions {
  // Deadline of each attempt of a call; of a stream, for each of its messages.
  absl::Duration timeout = absl::Minutes(10);
  RetryPolicy retry;
  // How a retry waits. Of a channel that is to connect meanwhile: WaitOn (channel_wait.h). Tests give one
  // that does not.
  std::function<void(absl::Duration)> sleep = absl::SleepFor;
  // Told of every attempt of a call and how it ended. May be empty. Called from
  // the calling thread.
  std::function<void(std::string_view method, const absl::Status& status)> on_attempt;
  // Told why a call is repeated, before the wait for it. May be empty; likewise.
  std::function<void(const absl::Status& status, absl::Duration wait)> on_wait;
};

// A finished Generate stream.
struct Generation {
  v1::RunHeader header;
  v1::GenerateSummary summary;
};

// One activation with its values in row-major order.
struct Activation {
  v1::ActivationInfo info;
  std::vector<float> values;
};

// A finished RunWithCache or GetActivation stream. With `store` no activations.
struct CachedRun {
  v1::RunHeader header;
  std::vector<Activation> activations;
  v1::RunSummary summary;
};

// A finished RunPatchSweep stream; results[i].set_index() is i.
struct Sweep {
  v1::SweepHeader header;
  std::vector<v1::SweepResult> results;
  v1::SweepSummary summary;
};

// A finished RunAttribution stream.
struct AttributionOfPair {
  v1::AttributedPair pair;
  std::vector<Activation> tensors;            // scores or gradients, without top_count
  std::vector<v1::AttributionScore> largest;  // with it
  std::vector<v1::AttributionEdge> edges;     // with `edges`
};
struct AttributionRun {
  v1::AttributionHeader header;
  std::vector<AttributionOfPair> pairs;  // in the order of the request
  v1::AttributionSummary summary;
};

// A finished RunCircuit stream, results in the order of the request.
struct CircuitRun {
  v1::CircuitHeader header;
  std::vector<v1::CircuitResult> results;
  v1::CircuitSummary summary;
};

// A finished RunReadout stream.
struct ReadoutOfPosition {
  v1::ReadoutPosition position;
  std::vector<v1::DirectContribution> contributions;
};
struct ReadoutOfPrompt {
  v1::ReadoutPrompt prompt;
  std::vector<v1::LensReading> readings;     // with logit_lens
  std::vector<ReadoutOfPosition> positions;  // with direct_attribution
};
struct Readout {
  v1::ReadoutHeader header;
  std::vector<ReadoutOfPrompt> prompts;  // in the order of the request
  v1::ReadoutSummary summary;
};

// A finished RunMeanActivations stream. Each activation has its means, then its variances.
struct MeanActivations {
  v1::MeanActivationsHeader header;
  std::vector<Activation> activations;
  v1::RunSummary summary;
};

// A finished ScoreTexts stream; scores[i] is of texts[i].
struct TextScores {
  v1::ScoreTextsHeader header;
  std::vector<v1::TextScore> scores;
  v1::ScoreTextsSummary summary;
};

// The ModelService as plain calls: streams read to their end, deadlines set,
// passing failures retried (see RetryLoop).
// Thread-safe. Errors: the service's own status with its details; DataLoss when
// a stream ends before it is complete. Calls block.
class ModelClient {
 public:
  explicit ModelClient(std::shared_ptr<v1::ModelService::StubInterface> stub,
                       ModelClientOptions options = {});

  absl::StatusOr<v1::GetModelResponse> GetModel();
  // All of them, of all pages; so with the stored runs.
  absl::StatusOr<v1::ListHookPointsResponse> ListHookPoints(const std::string& name_pattern);
  absl::StatusOr<v1::ListActivationsResponse> ListActivations();
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);
  // `on_text`, if given, gets each piece of text as it comes; a call that was
  // cut off after that is not repeated.
  absl::StatusOr<Generation> Generate(const v1::GenerateRequest& request,
                                      const std::function<void(std::string_view)>& on_text = nullptr);
  absl::StatusOr<CachedRun> RunWithCache(const v1::RunWithCacheRequest& request);
  absl::StatusOr<v1::RunWithPatchResponse> RunWithPatch(const v1::RunWithPatchRequest& request);
  // `on_result`, if given, is told of each result that comes, with how many there
  // will be; a call that is repeated begins again.
  absl::StatusOr<Sweep> RunPatchSweep(const v1::RunPatchSweepRequest& request,
                                      const std::function<void(int result_count)>& on_result = nullptr);
  // `on_pair`, if given, is told of each pair that has come; a call that is repeated begins
  // again.
  absl::StatusOr<AttributionRun> RunAttribution(
      const v1::RunAttributionRequest& request,
      const std::function<void(int finished, int count)>& on_pair = nullptr);
  // `on_result` as with RunPatchSweep.
  absl::StatusOr<CircuitRun> RunCircuit(const v1::RunCircuitRequest& request,
                                        const std::function<void(int result_count)>& on_result = nullptr);
  absl::StatusOr<Readout> RunReadout(const v1::RunReadoutRequest& request);
  absl::StatusOr<MeanActivations> RunMeanActivations(const v1::RunMeanActivationsRequest& request);
  absl::StatusOr<TextScores> ScoreTexts(const v1::ScoreTextsRequest& request);
  absl::StatusOr<v1::CheckDeviceResponse> CheckDevice();
  // Tried once and for two seconds at most: it tidies up, often after a server was lost, and
  // stored runs expire anyway.
  absl::Status DeleteActivation(const std::string& handle);

 private:
  template <typename Request, typename Response>
  absl::StatusOr<Response> Unary(std::string_view method,
                                 grpc::Status (v1::ModelService::StubInterface::*call)(grpc::ClientContext*,
                                                                                       const Request&,
                                                                                       Response*),
                                 const Request& request);
  // Calls `attempt` until it succeeds or is not worth repeating.
  absl::Status Retry(std::string_view method,
                     const std::function<absl::Status(grpc::ClientContext&)>& attempt);

  std::shared_ptr<v1::ModelService::StubInterface> stub_;
  ModelClientOptions options_;
};

// FailedPrecondition when what answers is not what answered before (another model_hash or
// serving_hash), which happens when a server is restarted in the middle of an experiment. Says
// what differs.
absl::Status CheckSameModel(const v1::ModelIdentity& expected, const v1::ModelIdentity& actual);

}  // namespace mechinterp

#endif  // CLIENTS_LIB_MODEL_CLIENT_H_
