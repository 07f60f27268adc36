#include "services/model/response_building.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "services/common/tensor_bytes.h"
#include "services/common/version.h"
#include "services/engine/operations/cached_run.h"

namespace mechinterp {
namespace {

google::protobuf::Duration BuildDuration(absl::Duration duration) {
  const int64_t nanos = std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration));
  google::protobuf::Duration result;
  result.set_seconds(nanos / 1'000'000'000);
  result.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return result;
}

constexpr int kUnquantizedOnTheWire = 1;  // QUANTIZATION_NONE, HEAD_QUANTIZATION_NONE
static_assert(v1::QUANTIZATION_NONE == kUnquantizedOnTheWire);
static_assert(v1::HEAD_QUANTIZATION_NONE == kUnquantizedOnTheWire);

v1::Device ToProto(engine::DeviceKind kind) {
  switch (kind) {
    case engine::DeviceKind::kMps:
      return v1::DEVICE_MPS;
    case engine::DeviceKind::kCuda:
      return v1::DEVICE_CUDA;
    case engine::DeviceKind::kCpu:
      break;
  }
  return v1::DEVICE_CPU;
}

}  // namespace

v1::HookPoint ToProto(engine::HookPoint point) {
  return static_cast<v1::HookPoint>(engine::WireNumber(point));
}

v1::ModelIdentity BuildIdentity(const engine::Model& model, const std::string& self_check_id) {
  v1::ModelIdentity identity;
  identity.set_name(model.name());
  identity.set_model_hash(model.content_hash());
  identity.set_tokenizer_hash(model.tokenizer_hash());
  identity.set_serving_hash(model.serving_hash());
  // Formats know their numbers on the wire.
  const engine::WeightFormats& formats = model.formats();
  identity.set_quantization(static_cast<v1::Quantization>(
      formats.quantization ? engine::InfoOf(*formats.quantization).quantization : kUnquantizedOnTheWire));
  identity.set_head_quantization(static_cast<v1::HeadQuantization>(
      formats.head ? engine::InfoOf(*formats.head).head_quantization : kUnquantizedOnTheWire));
  identity.set_compute_type(static_cast<v1::ComputeType>(engine::InfoOf(formats.compute_type).compute_type));
  identity.set_device(ToProto(model.device().kind));
  identity.set_server_version(kVersion);
  identity.set_self_check_id(self_check_id);
  return identity;
}

v1::GetModelResponse BuildModelResponse(const engine::Model& model, const std::string& self_check_id) {
  const engine::ModelConfig& config = model.config();
  v1::GetModelResponse response;
  *response.mutable_identity() = BuildIdentity(model, self_check_id);
  response.set_architecture(config.architecture);
  response.set_layer_count(config.layer_count());
  response.set_head_count(config.head_count);
  response.set_key_value_head_count(config.key_value_head_count);
  response.set_head_size(config.head_size);
  response.set_d_model(config.d_model);
  response.set_d_ff(config.d_ff);
  response.set_vocabulary_size(config.vocabulary_size);
  response.set_context_length(config.context_length);
  response.set_parameter_count(model.parameter_count());
  response.set_has_tokenizer(model.tokenizer() != nullptr);
  response.set_has_chat_template(model.chat_template().has_value());
  if (model.chat_template()) response.set_chat_template(model.chat_template()->format.name);
  for (engine::TokenId id : config.stop_token_ids) response.add_stop_token_ids(id);
  response.set_weight_bytes(model.total_weight_bytes());
  for (const auto& [format, bytes] : model.weight_bytes()) {
    v1::MemoryUsage& usage = *response.add_memory();
    usage.set_part(static_cast<v1::MemoryPart>(engine::InfoOf(format).memory_part));
    usage.set_byte_count(bytes);
  }
  response.set_libtorch_version(engine::LibtorchVersion());
  v1::DeviceInfo& device = *response.mutable_device();
  const engine::DeviceMemory memory = engine::MemoryOf(model.device());
  device.set_device(ToProto(model.device().kind));
  device.set_name(engine::DeviceName(model.device()));
  device.set_memory_byte_count(memory.total_bytes);
  device.set_allocated_byte_count(memory.allocated_bytes);
  return response;
}

v1::CheckDeviceResponse BuildDeviceCheck(const engine::SelfCheck& check) {
  v1::CheckDeviceResponse response;
  response.set_passed(check.passed);
  response.set_tolerance(check.tolerance);
  for (const engine::LayerError& error : check.layers) {
    v1::LayerCheck& layer = *response.add_layers();
    layer.set_layer(error.layer);
    layer.set_relative_error(error.relative_error);
  }
  response.set_head_relative_error(check.head_relative_error);
  response.set_problem(check.problem);
  *response.mutable_duration() = BuildDuration(check.duration);
  return response;
}

v1::HookPointInfo BuildHookPointInfo(const engine::HookSite& site, const engine::ModelConfig& config) {
  v1::HookPointInfo info;
  info.set_name(engine::SiteName(site));
  *info.mutable_site() = BuildSite(site);
  for (int64_t size : engine::PublicShape(site.point, config, -1, -1)) info.add_shape(size);
  info.set_can_capture(true);
  info.set_can_edit(true);
  return info;
}

std::string TokenText(const engine::Model& model, engine::TokenId id) {
  return model.tokenizer() == nullptr ? "" : model.tokenizer()->TokenText(id);
}

v1::TokenProbability BuildTokenProbability(const engine::Model& model,
                                           const engine::TokenProbability& token) {
  v1::TokenProbability result;
  result.set_token_id(token.id);
  result.set_text(TokenText(model, token.id));
  result.set_probability(token.probability);
  result.set_logit(token.logit);
  return result;
}

v1::RunMetrics BuildMetrics(const engine::Model& model, const engine::RunMetrics& metrics) {
  v1::RunMetrics result;
  if (metrics.logit_difference) result.set_logit_difference(*metrics.logit_difference);
  if (metrics.refusal_log_odds) result.set_refusal_log_odds(*metrics.refusal_log_odds);
  if (metrics.kl_from_clean) result.set_kl_from_clean(*metrics.kl_from_clean);
  if (metrics.refusal_opening_log_probability) {
    result.set_refusal_opening_log_probability(*metrics.refusal_opening_log_probability);
  }
  if (metrics.compliance_opening_log_probability) {
    result.set_compliance_opening_log_probability(*metrics.compliance_opening_log_probability);
  }
  for (const engine::TokenProbability& token : metrics.top_tokens) {
    *result.add_top_tokens() = BuildTokenProbability(model, token);
  }
  return result;
}

v1::Continuation BuildContinuation(const engine::Model& model, const engine::Generation& generation) {
  v1::Continuation continuation;
  for (engine::TokenId id : generation.ids) continuation.add_token_ids(id);
  const bool stopped = generation.finish_reason == engine::FinishReason::kStopToken;
  continuation.set_finish_reason(stopped ? v1::FINISH_REASON_STOP_TOKEN : v1::FINISH_REASON_MAX_NEW_TOKENS);
  if (model.tokenizer() != nullptr) {
    const absl::Span<const engine::TokenId> shown =
        absl::MakeConstSpan(generation.ids).subspan(0, generation.ids.size() - (stopped ? 1 : 0));
    continuation.set_text(model.tokenizer()->Decode(shown, /*skip_special=*/true));
  }
  return continuation;
}

v1::SweepSite BuildSweepSite(const engine::SweepSite& site) {
  v1::SweepSite result;
  *result.mutable_site() = BuildSite(site.site);
  if (site.position) result.set_position(*site.position);
  if (site.head) result.set_head(*site.head);
  if (site.dim_begin) result.set_dim_begin(*site.dim_begin);
  if (site.dim_end) result.set_dim_end(*site.dim_end);
  return result;
}

v1::RunTimings BuildTimings(absl::Duration queued, absl::Duration total) {
  v1::RunTimings timings;
  *timings.mutable_queue_duration() = BuildDuration(queued);
  *timings.mutable_run_duration() = BuildDuration(total);
  return timings;
}

google::protobuf::Timestamp BuildTimestamp(absl::Time time) {
  const int64_t nanos = absl::ToUnixNanos(time);
  google::protobuf::Timestamp result;
  result.set_seconds(nanos / 1'000'000'000);
  result.set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
  return result;
}

v1::HookSite BuildSite(const engine::HookSite& site) {
  v1::HookSite result;
  result.set_point(ToProto(site.point));
  result.set_layer(site.layer);
  return result;
}

v1::ActivationInfo BuildActivationInfo(const engine::HookSite& site, const std::vector<int64_t>& shape,
                                       v1::DataType type) {
  v1::ActivationInfo info;
  info.set_name(engine::SiteName(site));
  *info.mutable_site() = BuildSite(site);
  info.set_data_type(type);
  for (int64_t size : shape) info.add_shape(size);
  info.set_byte_count(engine::ElementCount(shape) * ElementBytes(type).value());
  return info;
}

v1::StoredRun BuildStoredRun(const engine::ModelConfig& config, const ActivationStore::Entry& entry) {
  v1::StoredRun stored;
  const StoredRunInfo& info = *entry.info;
  stored.set_handle(info.handle);
  for (engine::TokenId id : info.prompt.ids) stored.add_prompt_token_ids(id);
  std::map<engine::HookSite, std::array<int64_t, 3>> shapes;
  for (const auto& [site, shape] : info.activations) shapes[site] = shape;
  for (const engine::HookSite& site : engine::AllSites(config)) {
    const auto found = shapes.find(site);
    if (found == shapes.end()) continue;
    *stored.add_activations() = BuildActivationInfo(
        site, engine::PublicShape(site.point, config, found->second[0], found->second[2]));
  }
  stored.set_total_byte_count(ByteCount(info));
  stored.set_place(entry.run ? v1::STORAGE_PLACE_MEMORY : v1::STORAGE_PLACE_DISK);
  *stored.mutable_create_time() = BuildTimestamp(info.create_time);
  *stored.mutable_expire_time() = BuildTimestamp(entry.expire_time);
  return stored;
}

}  // namespace mechinterp
