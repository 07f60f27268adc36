#include "tests/clients/fake_model_service.h"

#include <fnmatch.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "grpcpp/health_check_service_interface.h"
#include "services/common/status.h"
#include "services/common/status_macros.h"

namespace mechinterp::testing {
namespace {

using google::protobuf::util::TimeUtil;

v1::RunMetrics MetricsOf(const ToyRun& run) {
  v1::RunMetrics metrics;
  metrics.set_logit_difference(run.logit_difference());
  metrics.set_refusal_log_odds(run.logit_difference() - 1);
  return metrics;
}

// What the toy's grids split by, in the order of the protocol: point, layer,
// position, head, group.
std::vector<v1::SweepSite> ExpandGrid(const v1::SweepGrid& grid, int length) {
  std::vector<v1::SweepSite> sites;
  for (const int point : grid.points()) {
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      v1::SweepSite site;
      site.mutable_site()->set_point(static_cast<v1::HookPoint>(point));
      site.mutable_site()->set_layer(layer);
      if (grid.axes(0) == v1::SWEEP_AXIS_POSITION) {
        const auto& indices = grid.prototype().selector().positions().indices();
        for (int i = 0; i < (indices.empty() ? length : indices.size()); ++i) {
          site.set_position(static_cast<uint32_t>(indices.empty() ? i : length + indices[i]));
          sites.push_back(site);
        }
      } else if (grid.axes(0) == v1::SWEEP_AXIS_HEAD) {
        for (uint32_t head = 0; head < kHeads; ++head) {
          site.set_head(head);
          sites.push_back(site);
        }
      } else {
        for (uint32_t begin = 0; begin < kNeurons; begin += grid.dims_per_group()) {
          site.set_dim_begin(begin);
          site.set_dim_end(std::min<uint32_t>(kNeurons, begin + grid.dims_per_group()));
          sites.push_back(site);
        }
      }
    }
  }
  return sites;
}

v1::Intervention AtSite(v1::Intervention intervention, const v1::SweepSite& site) {
  *intervention.mutable_site() = site.site();
  v1::Selector& selector = *intervention.mutable_selector();
  if (site.has_head()) selector.add_heads(site.head());
  for (uint32_t dim = site.dim_begin(); dim < site.dim_end(); ++dim) selector.add_dims(dim);
  if (site.has_position()) {
    selector.clear_positions();
    selector.mutable_positions()->add_indices(static_cast<int32_t>(site.position()));
  }
  return intervention;
}

}  // namespace

void FakeModelService::FailNext(const std::string& method, std::vector<absl::Status> failures) {
  const std::lock_guard<std::mutex> lock(mutex_);
  failures_[method].assign(failures.begin(), failures.end());
}

void FakeModelService::ExpireStoredRuns() {
  const std::lock_guard<std::mutex> lock(mutex_);
  stored_.clear();
}

void FakeModelService::set_model_hash(const std::string& hash) {
  const std::lock_guard<std::mutex> lock(mutex_);
  model_hash_ = hash;
}

void FakeModelService::set_compute_type(v1::ComputeType type) {
  const std::lock_guard<std::mutex> lock(mutex_);
  compute_type_ = type;
}

void FakeModelService::set_deviation(const ToyDeviation& deviation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  deviation_ = deviation;
}

void FakeModelService::set_device_check(const v1::CheckDeviceResponse& check) {
  const std::lock_guard<std::mutex> lock(mutex_);
  device_check_ = check;
}

void FakeModelService::set_continuation(std::vector<uint32_t> token_ids) {
  const std::lock_guard<std::mutex> lock(mutex_);
  continuation_ = std::move(token_ids);
}

void FakeModelService::set_gives_metrics(bool gives) {
  const std::lock_guard<std::mutex> lock(mutex_);
  gives_metrics_ = gives;
}

void FakeModelService::set_hooks_are_editable(bool editable) {
  const std::lock_guard<std::mutex> lock(mutex_);
  hooks_are_editable_ = editable;
}

void FakeModelService::set_has_tokenizer(bool has) {
  const std::lock_guard<std::mutex> lock(mutex_);
  has_tokenizer_ = has;
}

int FakeModelService::call_count(const std::string& method) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = calls_.find(method);
  return found == calls_.end() ? 0 : found->second;
}

int FakeModelService::stored_run_count() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int>(stored_.size());
}

std::vector<v1::GenerateRequest> FakeModelService::generate_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return generate_requests_;
}

std::vector<v1::RunWithPatchRequest> FakeModelService::patch_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return patch_requests_;
}

std::vector<v1::RunPatchSweepRequest> FakeModelService::sweep_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return sweep_requests_;
}

absl::Status FakeModelService::Enter(const std::string& method) {
  ++calls_[method];
  std::deque<absl::Status>& ordered = failures_[method];
  if (ordered.empty()) return absl::OkStatus();
  const absl::Status status = ordered.front();
  ordered.pop_front();
  return status;
}

v1::ModelIdentity FakeModelService::identity() const {
  v1::ModelIdentity identity;
  identity.set_name("toy");
  identity.set_model_hash(model_hash_);
  identity.set_serving_hash(absl::StrCat(model_hash_, " in ", v1::ComputeType_Name(compute_type_)));
  identity.set_compute_type(compute_type_);
  identity.set_quantization(v1::QUANTIZATION_NONE);
  identity.set_device(v1::DEVICE_CPU);
  identity.set_server_version("0.0.1");
  return identity;
}

v1::Continuation FakeModelService::ContinuationOf(double logit_difference) const {
  v1::Continuation continuation;
  if (has_tokenizer_) continuation.set_text(logit_difference > 0 ? kRefusal : kAnswer);
  continuation.mutable_token_ids()->Add(continuation_.begin(), continuation_.end());
  continuation.set_finish_reason(v1::FINISH_REASON_STOP_TOKEN);
  return continuation;
}

absl::StatusOr<ToyRun> FakeModelService::Find(const v1::ActivationSource& source) {
  if (source.has_prompt()) return RunClean(tokenizer_.Tokenize(source.prompt().prompt(), false));
  const auto found = stored_.find(source.stored().handle());
  if (found == stored_.end()) return absl::NotFoundError("unknown handle");
  return found->second;
}

template <typename Interventions>
absl::StatusOr<ToyRun> FakeModelService::Run(const v1::Prompt& prompt, const Interventions& interventions) {
  ToyRun run = RunClean(tokenizer_.Tokenize(prompt, false));
  for (const v1::Intervention& intervention : interventions) {
    ABSTRACT_RETURN_IF_ERROR(Apply(
        intervention, [this](const auto& source) { return Find(source); }, run));
  }
  return run;
}

grpc::Status FakeModelService::GetModel(grpc::ServerContext*, const v1::GetModelRequest*,
                                        v1::GetModelResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Enter("GetModel"); !status.ok()) return ToGrpcStatus(status);
  *response->mutable_identity() = identity();
  response->set_layer_count(kLayers);
  response->set_head_count(kHeads);
  response->set_key_value_head_count(2);
  response->set_head_size(4);
  response->set_d_model(kResidualSize);
  response->set_d_ff(kNeurons);
  response->set_vocabulary_size(kVocabulary);
  response->set_parameter_count(100000);
  response->set_has_tokenizer(has_tokenizer_);
  response->set_has_chat_template(has_tokenizer_);
  response->set_chat_template("llama3");
  response->set_libtorch_version("9.8.7");
  response->mutable_device()->set_device(v1::DEVICE_CPU);
  response->mutable_device()->set_name("abacus");
  response->mutable_device()->set_memory_byte_count(uint64_t{2048} << 20);
  response->mutable_device()->set_allocated_byte_count(uint64_t{512} << 20);
  v1::MemoryUsage& weights = *response->add_memory();
  weights.set_part(v1::MEMORY_PART_WEIGHTS_NF4);
  weights.set_byte_count(uint64_t{100} << 20);
  return grpc::Status::OK;
}

grpc::Status FakeModelService::ListHookPoints(grpc::ServerContext*, const v1::ListHookPointsRequest* request,
                                              v1::ListHookPointsResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // A page for each layer.
  const uint32_t first = request->page_token().empty() ? 0 : std::stoul(request->page_token());
  if (first + 1 < kLayers) response->set_next_page_token(std::to_string(first + 1));
  for (const uint32_t layer : {first}) {
    v1::HookPointInfo info;
    info.set_name(absl::StrCat("blocks.", layer, ".attn.hook_z"));
    info.mutable_site()->set_point(v1::HOOK_POINT_Z);
    info.mutable_site()->set_layer(layer);
    for (const int64_t size : {int64_t{-1}, int64_t{kHeads}, int64_t{4}}) info.add_shape(size);
    info.set_can_capture(true);
    info.set_can_edit(hooks_are_editable_);
    const std::string& pattern = request->name_pattern();
    if (pattern.empty() || fnmatch(pattern.c_str(), info.name().c_str(), 0) == 0)
      *response->add_hook_points() = info;
  }
  return grpc::Status::OK;
}

grpc::Status FakeModelService::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                        v1::TokenizeResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Enter("Tokenize"); !status.ok()) return ToGrpcStatus(status);
  if (!has_tokenizer_ && !request->prompt().has_token_ids()) {
    return ToGrpcStatus(absl::FailedPreconditionError("the model has no tokenizer"));
  }
  *response = tokenizer_.Tokenize(request->prompt(), request->omit_begin_of_text());
  return grpc::Status::OK;
}

grpc::Status FakeModelService::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                          v1::DetokenizeResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!has_tokenizer_) return ToGrpcStatus(absl::FailedPreconditionError("the model has no tokenizer"));
  for (const uint32_t id : request->ids()) response->mutable_text()->append(absl::StrCat("<", id, ">"));
  return grpc::Status::OK;
}

grpc::Status FakeModelService::Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                                        grpc::ServerWriter<v1::GenerateResponse>* writer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  generate_requests_.push_back(*request);
  if (absl::Status status = Enter("Generate"); !status.ok()) return ToGrpcStatus(status);
  const absl::StatusOr<ToyRun> run = Run(request->prompt(), request->interventions());
  if (!run.ok()) return ToGrpcStatus(run.status());
  const v1::Continuation continuation = ContinuationOf(run->logit_difference());
  const std::string& text = continuation.text();
  const size_t half = std::min<size_t>(text.size(), 4);
  v1::GenerateResponse message;
  *message.mutable_header()->mutable_model() = identity();
  writer->Write(message);
  message.mutable_token()->set_text(text.substr(0, half));
  writer->Write(message);
  message.mutable_token()->set_text(text.substr(half));
  writer->Write(message);
  *message.mutable_summary()->mutable_continuation() = continuation;
  if (request->has_metrics() && gives_metrics_)
    *message.mutable_summary()->mutable_metrics() = MetricsOf(*run);
  *message.mutable_summary()->mutable_timings()->mutable_run_duration() =
      TimeUtil::MillisecondsToDuration(run->length() + 10 * request->sampling().max_new_tokens());
  writer->Write(message);
  return grpc::Status::OK;
}

grpc::Status FakeModelService::RunWithCache(grpc::ServerContext*, const v1::RunWithCacheRequest* request,
                                            grpc::ServerWriter<v1::RunWithCacheResponse>* writer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Enter("RunWithCache"); !status.ok()) return ToGrpcStatus(status);
  const absl::StatusOr<ToyRun> run = Run(request->prompt(), request->interventions());
  if (!run.ok()) return ToGrpcStatus(run.status());
  v1::RunWithCacheResponse message;
  *message.mutable_header()->mutable_model() = identity();
  *message.mutable_header()->mutable_prompt_token_ids() = run->tokens.ids();
  auto sites = request->filter().sites();
  for (const std::string& pattern : request->filter().name_patterns()) {
    if (pattern == "logits") sites.Add()->set_point(v1::HOOK_POINT_LOGITS);
  }
  const std::vector<Activation> activations = ToyActivations(run->tokens.ids(), sites, deviation_);
  for (const Activation& activation : activations)
    *message.mutable_header()->add_activations() = activation.info;
  writer->Write(message);
  if (request->store()) {
    const std::string handle = absl::StrCat("run-", next_handle_++);
    stored_[handle] = *run;
    message.mutable_summary()->set_handle(handle);
    writer->Write(message);
    return grpc::Status::OK;
  }
  uint64_t total = 0;
  for (size_t i = 0; i < activations.size(); ++i) {
    const std::vector<float>& values = activations[i].values;
    const std::string bytes(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    for (const size_t begin :
         {bytes.size() / 2, size_t{0}}) {  // The second half first: order must not matter.
      message.mutable_chunk()->set_activation_index(static_cast<uint32_t>(i));
      message.mutable_chunk()->set_offset_bytes(begin);
      message.mutable_chunk()->set_data(bytes.substr(begin, bytes.size() / 2));
      writer->Write(message);
    }
    total += bytes.size();
  }
  message.mutable_summary()->set_total_byte_count(total);
  writer->Write(message);
  return grpc::Status::OK;
}

grpc::Status FakeModelService::RunWithPatch(grpc::ServerContext*, const v1::RunWithPatchRequest* request,
                                            v1::RunWithPatchResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  patch_requests_.push_back(*request);
  if (absl::Status status = Enter("RunWithPatch"); !status.ok()) return ToGrpcStatus(status);
  const absl::StatusOr<ToyRun> clean = Run(request->prompt(), std::vector<v1::Intervention>());
  const absl::StatusOr<ToyRun> patched = Run(request->prompt(), request->interventions());
  if (!patched.ok()) return ToGrpcStatus(patched.status());
  *response->mutable_clean() = MetricsOf(*clean);
  *response->mutable_patched() = MetricsOf(*patched);
  *response->mutable_clean_continuation() = ContinuationOf(clean->logit_difference());
  *response->mutable_patched_continuation() = ContinuationOf(patched->logit_difference());
  return grpc::Status::OK;
}

absl::Status FakeModelService::WriteSweep(const v1::RunPatchSweepRequest& request,
                                          grpc::ServerWriter<v1::RunPatchSweepResponse>& writer) {
  const std::vector<v1::Intervention> none;
  ABSTRACT_ASSIGN_OR_RETURN(const ToyRun clean, Run(request.prompt(), none));
  ToyRun source = clean;
  if (request.has_source_prompt()) {
    ABSTRACT_ASSIGN_OR_RETURN(source, Run(request.source_prompt(), none));
  }
  const std::vector<v1::SweepSite> sites = ExpandGrid(request.grid(), clean.length());
  v1::RunPatchSweepResponse message;
  v1::SweepHeader& header = *message.mutable_header();
  *header.mutable_model() = identity();
  header.set_set_count(static_cast<uint32_t>(sites.size()));
  *header.mutable_prompt_token_ids() = clean.tokens.ids();
  const auto middle = sites.begin() + static_cast<std::ptrdiff_t>(sites.size() / 2);
  header.mutable_sites()->Assign(sites.begin(), middle);
  writer.Write(message);
  message.mutable_sites()->mutable_sites()->Assign(middle, sites.end());
  writer.Write(message);
  for (size_t i = sites.size(); i-- > 0;) {  // Results come in any order.
    const std::vector<v1::Intervention> set = {AtSite(request.grid().prototype(), sites[i])};
    ABSTRACT_ASSIGN_OR_RETURN(const ToyRun patched, Run(request.prompt(), set));
    v1::SweepResult& result = *message.mutable_result();
    result.set_set_index(static_cast<uint32_t>(i));
    *result.mutable_metrics() = MetricsOf(patched);
    const double range = source.logit_difference() - clean.logit_difference();
    result.clear_effect();
    if (range != 0) result.set_effect((patched.logit_difference() - clean.logit_difference()) / range);
    writer.Write(message);
  }
  message.mutable_summary()->set_run_count(static_cast<uint32_t>(sites.size()));
  *message.mutable_summary()->mutable_timings()->mutable_run_duration() =
      TimeUtil::MillisecondsToDuration(2 * static_cast<int64_t>(sites.size()));
  writer.Write(message);
  return absl::OkStatus();
}

grpc::Status FakeModelService::RunPatchSweep(grpc::ServerContext*, const v1::RunPatchSweepRequest* request,
                                             grpc::ServerWriter<v1::RunPatchSweepResponse>* writer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sweep_requests_.push_back(*request);
  absl::Status status = Enter("RunPatchSweep");
  if (status.ok()) status = WriteSweep(*request, *writer);
  return ToGrpcStatus(status);
}

std::vector<v1::RunAttributionRequest> FakeModelService::attribution_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return attribution_requests_;
}

grpc::Status FakeModelService::RunAttribution(grpc::ServerContext*, const v1::RunAttributionRequest* request,
                                              grpc::ServerWriter<v1::RunAttributionResponse>* writer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  attribution_requests_.push_back(*request);
  if (absl::Status status = Enter("RunAttribution"); !status.ok()) return ToGrpcStatus(status);
  v1::RunAttributionResponse message;
  *message.mutable_header()->mutable_model() = identity();
  message.mutable_header()->set_pair_count(static_cast<uint32_t>(request->pairs_size()));
  writer->Write(message);
  for (int i = 0; i < request->pairs_size(); ++i) {
    const ToyRun clean = RunClean(tokenizer_.Tokenize(request->pairs(i).prompt(), false));
    const ToyRun source = RunClean(tokenizer_.Tokenize(request->pairs(i).source_prompt(), false));
    const double change = source.logit_difference() - clean.logit_difference();
    v1::AttributedPair& pair = *message.mutable_pair();
    pair.Clear();
    pair.set_pair_index(static_cast<uint32_t>(i));
    pair.set_metric(clean.logit_difference());
    pair.set_source_metric(source.logit_difference());
    *pair.mutable_prompt_token_ids() = clean.tokens.ids();
    for (int t = 0; t < clean.length(); ++t) pair.add_prompt_pieces(absl::StrCat("t", t));
    v1::HookSite site;
    site.set_point(v1::HOOK_POINT_Z);
    std::vector<float> scores(2 * static_cast<size_t>(clean.length()));
    scores.back() = static_cast<float>(change);
    if (request->top_count() == 0) {
      v1::ActivationInfo& info = *pair.add_tensors();
      info.set_name("blocks.0.attn.hook_z");
      *info.mutable_site() = site;
      info.set_data_type(v1::DATA_TYPE_FLOAT32);
      info.add_shape(clean.length());
      info.add_shape(2);
      info.set_byte_count(scores.size() * sizeof(float));
      writer->Write(message);
      message.mutable_chunk()->set_data(scores.data(), scores.size() * sizeof(float));
    } else {
      writer->Write(message);
      if (request->edges()) {
        v1::AttributionEdge& edge = *message.mutable_scores()->add_edges();
        edge.set_name("L0.H1->final");
        edge.set_score(change);
        writer->Write(message);
        continue;
      }
      v1::AttributionScore& score = *message.mutable_scores()->add_scores();
      *score.mutable_site() = site;
      score.set_position(static_cast<uint32_t>(clean.length() - 1));
      score.set_node(1);
      score.set_score(change);
    }
    writer->Write(message);
  }
  message.mutable_summary();
  writer->Write(message);
  return grpc::Status::OK;
}

std::vector<v1::RunReadoutRequest> FakeModelService::readout_requests() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return readout_requests_;
}

namespace {

v1::LensReading LensReadingOf(v1::HookPoint point, uint32_t position, double logit_difference, bool ended) {
  v1::LensReading reading;
  reading.mutable_site()->set_point(point);
  reading.set_position(position);
  reading.set_logit_difference(logit_difference);
  reading.set_refusal_log_odds(logit_difference - 1);
  reading.set_kl_from_final(ended ? 0 : 0.25);
  v1::TokenProbability& token = *reading.add_top_tokens();
  token.set_token_id(7);
  token.set_text(ended ? "I" : "Sure");
  token.set_probability(0.5);
  *reading.mutable_target() = token;
  reading.mutable_target()->set_text("I");
  reading.set_target_rank(ended ? 0 : 2);
  return reading;
}

void AddContribution(const char* name, v1::HookPoint point, double value, v1::ReadoutPiece& piece) {
  v1::DirectContribution& contribution = *piece.add_contributions();
  contribution.set_name(name);
  contribution.mutable_site()->set_point(point);
  contribution.set_contribution(value);
}

}  // namespace

grpc::Status FakeModelService::RunReadout(grpc::ServerContext*, const v1::RunReadoutRequest* request,
                                          grpc::ServerWriter<v1::RunReadoutResponse>* writer) {
  const std::lock_guard<std::mutex> lock(mutex_);
  readout_requests_.push_back(*request);
  if (absl::Status status = Enter("RunReadout"); !status.ok()) return ToGrpcStatus(status);
  v1::RunReadoutResponse message;
  *message.mutable_header()->mutable_model() = identity();
  message.mutable_header()->set_prompt_count(static_cast<uint32_t>(request->prompts_size()));
  writer->Write(message);
  for (int i = 0; i < request->prompts_size(); ++i) {
    const ToyRun run = RunClean(tokenizer_.Tokenize(request->prompts(i), false));
    v1::ReadoutPrompt& prompt = *message.mutable_prompt();
    prompt.Clear();
    prompt.set_prompt_index(static_cast<uint32_t>(i));
    *prompt.mutable_prompt_token_ids() = run.tokens.ids();
    for (int t = 0; t < run.length(); ++t) prompt.add_prompt_pieces(absl::StrCat("t", t));
    writer->Write(message);
    std::vector<uint32_t> positions = {static_cast<uint32_t>(run.length() - 1)};
    if (request->positions().indices_size() > 0) positions = {0, 1};
    const double difference = run.logit_difference();
    for (const uint32_t position : positions) {
      v1::ReadoutPiece piece;
      if (request->has_logit_lens()) {
        *piece.add_readings() = LensReadingOf(v1::HOOK_POINT_RESID_PRE, position, difference / 2, false);
        *piece.add_readings() = LensReadingOf(v1::HOOK_POINT_RESID_POST, position, difference, true);
      } else {
        message.mutable_position()->set_position(position);
        message.mutable_position()->set_mean_logit_difference(difference);
        message.mutable_position()->set_contribution_sum(difference);
        writer->Write(message);
        AddContribution("embed", v1::HOOK_POINT_EMBED, 1, piece);
        AddContribution("L0.H0", v1::HOOK_POINT_RESULT, difference - 1, piece);
        AddContribution("L0.mlp", v1::HOOK_POINT_MLP_OUT, 0, piece);
        if (request->direct_attribution().neuron_count() > 0) {
          AddContribution("L0.N5", v1::HOOK_POINT_MLP_POST, 2, piece);
        }
      }
      *message.mutable_piece() = std::move(piece);
      writer->Write(message);
    }
  }
  message.mutable_summary();
  writer->Write(message);
  return grpc::Status::OK;
}

grpc::Status FakeModelService::CheckDevice(grpc::ServerContext*, const v1::CheckDeviceRequest*,
                                           v1::CheckDeviceResponse* response) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Enter("CheckDevice"); !status.ok()) return ToGrpcStatus(status);
  *response = device_check_;
  *response->mutable_model() = identity();
  return grpc::Status::OK;
}

grpc::Status FakeModelService::DeleteActivation(grpc::ServerContext*,
                                                const v1::DeleteActivationRequest* request,
                                                v1::DeleteActivationResponse*) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (absl::Status status = Enter("DeleteActivation"); !status.ok()) return ToGrpcStatus(status);
  if (stored_.erase(request->handle()) == 0) return ToGrpcStatus(absl::NotFoundError("unknown handle"));
  return grpc::Status::OK;
}

FakeServer::FakeServer() {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  server = builder.BuildAndStart();
  ModelClientOptions options;
  options.timeout = absl::Seconds(20);
  options.retry.jitter = 0;
  options.sleep = [this](absl::Duration duration) {
    const std::lock_guard<std::mutex> lock(sleeps_mutex);
    sleeps.push_back(duration);
  };
  const auto channel = grpc::CreateChannel(address(), grpc::InsecureChannelCredentials());
  client = std::make_unique<ModelClient>(v1::ModelService::NewStub(channel), options);
}

FakeServer::~FakeServer() { server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1)); }

v1::GetModelResponse FakeServer::GetModel() { return client->GetModel().value(); }

}  // namespace mechinterp::testing
