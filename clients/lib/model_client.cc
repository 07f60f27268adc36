#include "clients/lib/model_client.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/lib/activation_reader.h"
#include "clients/lib/attribution_reader.h"
#include "clients/lib/pages.h"
#include "clients/lib/readout_reader.h"
#include "clients/lib/stall_guard.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp {
namespace {

constexpr absl::Duration kTidyingTimeout = absl::Seconds(2);

// Reads a stream to its end, unless no message comes for `patience`. When
// `on_message` fails the call is cancelled and that failure returned.
template <typename Response, typename OnMessage>
absl::Status ReadAll(grpc::ClientContext& context, grpc::ClientReaderInterface<Response>& reader,
                     absl::Duration patience, OnMessage on_message) {
  StallGuard guard(context, patience);
  Response message;
  absl::Status failure;
  while (failure.ok() && reader.Read(&message)) {
    guard.Progressed();
    failure = on_message(message);
  }
  if (!failure.ok()) context.TryCancel();
  const absl::Status status = guard.Judge(FromGrpcStatus(reader.Finish()));
  return failure.ok() ? status : failure;
}

// Keeps what a sweep's stream tells until it is complete.
struct SweepReader {
  Sweep sweep;
  bool ended = false;
  std::vector<bool> seen;

  absl::Status Add(v1::RunPatchSweepResponse& message) {
    if (message.has_header()) {
      sweep.header = std::move(*message.mutable_header());
      sweep.results.assign(sweep.header.set_count(), {});
      seen.assign(sweep.header.set_count(), false);
    } else if (message.has_sites()) {
      for (v1::SweepSite& site : *message.mutable_sites()->mutable_sites()) {
        *sweep.header.add_sites() = std::move(site);
      }
    } else if (message.has_result()) {
      const uint32_t index = message.result().set_index();
      if (index >= seen.size()) return absl::DataLossError("a result of a set that was not announced");
      sweep.results[index] = std::move(*message.mutable_result());
      seen[index] = true;
    } else if (message.has_summary()) {
      sweep.summary = std::move(*message.mutable_summary());
      ended = true;
    }
    return absl::OkStatus();
  }

  absl::Status CheckComplete() const {
    if (!ended) return absl::DataLossError("the sweep ended without a summary");
    for (size_t i = 0; i < seen.size(); ++i) {
      if (!seen[i]) return absl::DataLossError(absl::StrCat("the sweep gave no result for set ", i));
    }
    return absl::OkStatus();
  }
};

}  // namespace

ModelClient::ModelClient(std::shared_ptr<v1::ModelService::StubInterface> stub, ModelClientOptions options)
    : stub_(std::move(stub)), options_(std::move(options)) {}

absl::Status ModelClient::Retry(std::string_view method,
                                const std::function<absl::Status(grpc::ClientContext&)>& attempt) {
  absl::Status status;
  RetryLoop loop(options_.retry, [&](absl::Duration wait) {
    if (options_.on_wait) options_.on_wait(status, wait);
    options_.sleep(wait);
  });
  do {
    grpc::ClientContext context;
    status = attempt(context);
    if (options_.on_attempt) options_.on_attempt(method, status);
  } while (loop.ShouldRetry(status));
  return status.ok() ? status : WithContext(status, method);
}

template <typename Request, typename Response>
absl::StatusOr<Response> ModelClient::Unary(
    std::string_view method,
    grpc::Status (v1::ModelService::StubInterface::*call)(grpc::ClientContext*, const Request&, Response*),
    const Request& request) {
  Response response;
  ABSTRACT_RETURN_IF_ERROR(Retry(method, [&](grpc::ClientContext& context) {
    response.Clear();
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.timeout));
    return FromGrpcStatus((*stub_.*call)(&context, request, &response));
  }));
  return response;
}

absl::StatusOr<v1::GetModelResponse> ModelClient::GetModel() {
  return Unary("GetModel", &v1::ModelService::StubInterface::GetModel, v1::GetModelRequest());
}

absl::StatusOr<v1::ListHookPointsResponse> ModelClient::ListHookPoints(const std::string& name_pattern) {
  v1::ListHookPointsRequest request;
  request.set_name_pattern(name_pattern);
  return AllPages<v1::ListHookPointsResponse>(request, [this](const v1::ListHookPointsRequest& page) {
    return Unary("ListHookPoints", &v1::ModelService::StubInterface::ListHookPoints, page);
  });
}

absl::StatusOr<v1::ListActivationsResponse> ModelClient::ListActivations() {
  v1::ListActivationsRequest request;
  return AllPages<v1::ListActivationsResponse>(request, [this](const v1::ListActivationsRequest& page) {
    return Unary("ListActivations", &v1::ModelService::StubInterface::ListActivations, page);
  });
}

absl::StatusOr<v1::TokenizeResponse> ModelClient::Tokenize(const v1::TokenizeRequest& request) {
  return Unary("Tokenize", &v1::ModelService::StubInterface::Tokenize, request);
}

absl::StatusOr<v1::DetokenizeResponse> ModelClient::Detokenize(const v1::DetokenizeRequest& request) {
  return Unary("Detokenize", &v1::ModelService::StubInterface::Detokenize, request);
}

absl::StatusOr<Generation> ModelClient::Generate(const v1::GenerateRequest& request,
                                                 const std::function<void(std::string_view)>& on_text) {
  Generation generation;
  bool ended = false;
  std::optional<absl::Status> cut_off;  // Text was shown: too late to begin again.
  const auto show = [&](const std::string& text, bool& shown) {
    if (!on_text || text.empty()) return;
    on_text(text);
    shown = true;
  };
  const absl::Status status = Retry("Generate", [&](grpc::ClientContext& context) -> absl::Status {
    bool shown = false;
    const auto reader = stub_->Generate(&context, request);
    const auto keep = [&](v1::GenerateResponse& message) {
      if (message.has_header()) generation.header = message.header();
      if (message.has_token()) show(message.token().text(), shown);
      if (message.has_summary()) {
        generation.summary = message.summary();
        show(message.summary().trailing_text(), shown);
        ended = true;
      }
      return absl::OkStatus();
    };
    absl::Status status = ReadAll<v1::GenerateResponse>(context, *reader, options_.timeout, keep);
    if (status.ok() || !shown) return status;
    cut_off = status;
    return absl::OkStatus();
  });
  ABSTRACT_RETURN_IF_ERROR(status);
  if (cut_off.has_value()) return WithContext(*cut_off, "Generate");
  if (!ended) return absl::DataLossError("Generate: the stream ended without a summary");
  return generation;
}

absl::StatusOr<CachedRun> ModelClient::RunWithCache(const v1::RunWithCacheRequest& request) {
  ActivationReader activations(request.store());
  ABSTRACT_RETURN_IF_ERROR(Retry("RunWithCache", [&](grpc::ClientContext& context) {
    const auto reader = stub_->RunWithCache(&context, request);
    const auto keep = [&](const v1::RunWithCacheResponse& message) {
      if (message.has_header()) return activations.Begin(message.header());
      if (message.has_chunk()) return activations.Add(message.chunk());
      return activations.End(message.summary());
    };
    return ReadAll<v1::RunWithCacheResponse>(context, *reader, options_.timeout, keep);
  }));
  return std::move(activations).Finish();
}

absl::StatusOr<MeanActivations> ModelClient::RunMeanActivations(
    const v1::RunMeanActivationsRequest& request) {
  MeanActivations means;
  ActivationReader activations(/*stored=*/false);
  ABSTRACT_RETURN_IF_ERROR(Retry("RunMeanActivations", [&](grpc::ClientContext& context) {
    const auto reader = stub_->RunMeanActivations(&context, request);
    const auto keep = [&](v1::RunMeanActivationsResponse& message) {
      if (message.has_chunk()) return activations.Add(message.chunk());
      if (message.has_summary()) return activations.End(message.summary());
      means.header = std::move(*message.mutable_header());
      v1::RunHeader header;
      *header.mutable_activations() = means.header.activations();
      return activations.Begin(header);
    };
    return ReadAll<v1::RunMeanActivationsResponse>(context, *reader, options_.timeout, keep);
  }));
  ABSTRACT_ASSIGN_OR_RETURN(CachedRun run, std::move(activations).Finish());
  means.activations = std::move(run.activations);
  means.summary = std::move(run.summary);
  return means;
}

absl::StatusOr<TextScores> ModelClient::ScoreTexts(const v1::ScoreTextsRequest& request) {
  TextScores scores;
  bool ended = false;
  ABSTRACT_RETURN_IF_ERROR(Retry("ScoreTexts", [&](grpc::ClientContext& context) {
    scores = TextScores();
    const auto reader = stub_->ScoreTexts(&context, request);
    const auto keep = [&](v1::ScoreTextsResponse& message) -> absl::Status {
      if (message.has_header()) scores.header = std::move(*message.mutable_header());
      if (message.has_score()) {
        if (message.score().text_index() != scores.scores.size()) {
          return absl::DataLossError(absl::StrCat("text ", message.score().text_index(), " came where text ",
                                                  scores.scores.size(), " was due"));
        }
        scores.scores.push_back(std::move(*message.mutable_score()));
      }
      if (message.has_summary()) {
        scores.summary = std::move(*message.mutable_summary());
        ended = true;
      }
      return absl::OkStatus();
    };
    return ReadAll<v1::ScoreTextsResponse>(context, *reader, options_.timeout, keep);
  }));
  if (!ended || scores.scores.size() != static_cast<size_t>(request.texts_size())) {
    return absl::DataLossError(absl::StrCat("ScoreTexts: ", scores.scores.size(), " of ",
                                            request.texts_size(), " texts were scored"));
  }
  return scores;
}

absl::StatusOr<v1::RunWithPatchResponse> ModelClient::RunWithPatch(const v1::RunWithPatchRequest& request) {
  return Unary("RunWithPatch", &v1::ModelService::StubInterface::RunWithPatch, request);
}

absl::StatusOr<Sweep> ModelClient::RunPatchSweep(const v1::RunPatchSweepRequest& request,
                                                 const std::function<void(int)>& on_result) {
  SweepReader sweep;
  ABSTRACT_RETURN_IF_ERROR(Retry("RunPatchSweep", [&](grpc::ClientContext& context) {
    sweep = SweepReader();
    const auto reader = stub_->RunPatchSweep(&context, request);
    const auto keep = [&](v1::RunPatchSweepResponse& message) {
      if (on_result && message.has_result()) on_result(static_cast<int>(sweep.seen.size()));
      return sweep.Add(message);
    };
    return ReadAll<v1::RunPatchSweepResponse>(context, *reader, options_.timeout, keep);
  }));
  ABSTRACT_RETURN_IF_ERROR(sweep.CheckComplete());
  return std::move(sweep.sweep);
}

absl::StatusOr<AttributionRun> ModelClient::RunAttribution(const v1::RunAttributionRequest& request,
                                                           const std::function<void(int, int)>& on_pair) {
  AttributionReader attribution;
  ABSTRACT_RETURN_IF_ERROR(Retry("RunAttribution", [&](grpc::ClientContext& context) {
    attribution = AttributionReader();
    const auto reader = stub_->RunAttribution(&context, request);
    const auto keep = [&](v1::RunAttributionResponse& message) {
      const int before = attribution.finished_pairs();
      const absl::Status status = attribution.Add(message);
      if (on_pair && attribution.finished_pairs() > before) {
        on_pair(attribution.finished_pairs(), attribution.pair_count());
      }
      return status;
    };
    return ReadAll<v1::RunAttributionResponse>(context, *reader, options_.timeout, keep);
  }));
  return std::move(attribution).Finish();
}

absl::StatusOr<CircuitRun> ModelClient::RunCircuit(const v1::RunCircuitRequest& request,
                                                   const std::function<void(int)>& on_result) {
  CircuitRun run;
  ABSTRACT_RETURN_IF_ERROR(Retry("RunCircuit", [&](grpc::ClientContext& context) {
    run = CircuitRun();
    const auto reader = stub_->RunCircuit(&context, request);
    const auto keep = [&](v1::RunCircuitResponse& message) {
      if (message.has_header()) run.header = std::move(*message.mutable_header());
      if (message.has_summary()) run.summary = std::move(*message.mutable_summary());
      if (!message.has_result()) return absl::OkStatus();
      if (message.result().circuit_index() != run.results.size()) {
        return absl::DataLossError("RunCircuit: a result is missing");
      }
      run.results.push_back(std::move(*message.mutable_result()));
      if (on_result) on_result(request.circuits_size());
      return absl::OkStatus();
    };
    return ReadAll<v1::RunCircuitResponse>(context, *reader, options_.timeout, keep);
  }));
  if (run.results.size() != static_cast<size_t>(request.circuits_size())) {
    return absl::DataLossError("RunCircuit: the stream ended before its last result");
  }
  return run;
}

absl::StatusOr<Readout> ModelClient::RunReadout(const v1::RunReadoutRequest& request) {
  ReadoutReader readout;
  ABSTRACT_RETURN_IF_ERROR(Retry("RunReadout", [&](grpc::ClientContext& context) {
    readout = ReadoutReader();
    const auto reader = stub_->RunReadout(&context, request);
    return ReadAll<v1::RunReadoutResponse>(
        context, *reader, options_.timeout,
        [&](v1::RunReadoutResponse& message) { return readout.Add(message); });
  }));
  return std::move(readout).Finish();
}

absl::StatusOr<v1::CheckDeviceResponse> ModelClient::CheckDevice() {
  return Unary("CheckDevice", &v1::ModelService::StubInterface::CheckDevice, v1::CheckDeviceRequest());
}

absl::Status ModelClient::DeleteActivation(const std::string& handle) {
  v1::DeleteActivationRequest request;
  request.set_handle(handle);
  v1::DeleteActivationResponse response;
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + std::min(options_.timeout, kTidyingTimeout)));
  const absl::Status status = FromGrpcStatus(stub_->DeleteActivation(&context, request, &response));
  if (options_.on_attempt) options_.on_attempt("DeleteActivation", status);
  return status.ok() ? status : WithContext(status, "DeleteActivation");
}

namespace {

// "compute type was COMPUTE_TYPE_FLOAT32, now COMPUTE_TYPE_BFLOAT16"
std::string DescribeDifference(const v1::ModelIdentity& a, const v1::ModelIdentity& b) {
  const auto differ = [](const char* what, const auto& before, const auto& now) {
    return before == now ? std::string() : absl::StrCat(what, " was ", before, ", now ", now);
  };
  const auto shorten = [](const std::string& hash) { return hash.empty() ? "none" : hash.substr(0, 12); };
  std::vector<std::string> differences = {
      differ("the model", absl::StrCat(a.name(), " (", shorten(a.model_hash()), ")"),
             absl::StrCat(b.name(), " (", shorten(b.model_hash()), ")")),
      differ("quantization", v1::Quantization_Name(a.quantization()),
             v1::Quantization_Name(b.quantization())),
      differ("head quantization", v1::HeadQuantization_Name(a.head_quantization()),
             v1::HeadQuantization_Name(b.head_quantization())),
      differ("compute type", v1::ComputeType_Name(a.compute_type()), v1::ComputeType_Name(b.compute_type())),
      differ("device", v1::Device_Name(a.device()), v1::Device_Name(b.device())),
      differ("the tokenizer", shorten(a.tokenizer_hash()), shorten(b.tokenizer_hash())),
  };
  std::erase(differences, "");
  if (differences.empty()) return "its chat template, stop tokens or other options are others";
  return absl::StrJoin(differences, "; ");
}

}  // namespace

absl::Status CheckSameModel(const v1::ModelIdentity& expected, const v1::ModelIdentity& actual) {
  if (expected.model_hash() == actual.model_hash() && expected.serving_hash() == actual.serving_hash()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the server does not answer as it did: ", DescribeDifference(expected, actual), "; was it restarted?"));
}

}  // namespace mechinterp
