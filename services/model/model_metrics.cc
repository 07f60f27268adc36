#include "services/model/model_metrics.h"

#include <string>
#include <utility>

#include "services/engine/forward/memory_use.h"

namespace mechinterp {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using Buckets = prometheus::Histogram::BucketBoundaries;

prometheus::Counter& Counter(prometheus::Registry& registry, const std::string& name,
                             const std::string& help) {
  return BuildCounter().Name(name).Help(help).Register(registry).Add({});
}
prometheus::Gauge& Gauge(prometheus::Registry& registry, const std::string& name, const std::string& help) {
  return BuildGauge().Name(name).Help(help).Register(registry).Add({});
}
prometheus::Histogram& Histogram(prometheus::Registry& registry, const std::string& name,
                                 const std::string& help, const Buckets& buckets) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

std::array<prometheus::Counter*, kRowKindCount> RowCounters(prometheus::Registry& registry) {
  auto& family = BuildCounter()
                     .Name("mechinterp_forward_rows_total")
                     .Help("Token positions run through the model, by kind of work.")
                     .Register(registry);
  return {&family.Add({{"kind", "decode"}}), &family.Add({{"kind", "prefill"}}),
          &family.Add({{"kind", "sweep"}})};  // in the order of RowKind
}

}  // namespace

ModelMetrics::ModelMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      pass_rows_(Histogram(*registry_, "mechinterp_forward_pass_rows", "Token positions in a forward pass.",
                           Buckets{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024})),
      pass_segments_(Histogram(*registry_, "mechinterp_forward_pass_segments",
                               "Sequences that share a forward pass.",
                               Buckets{1, 2, 4, 8, 16, 32, 64, 128, 256})),
      pass_seconds_(Histogram(*registry_, "mechinterp_forward_pass_duration_seconds",
                              "Time of a forward pass.",
                              Buckets{0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30})),
      gather_seconds_(
          Histogram(*registry_, "mechinterp_gather_wait_seconds",
                    "Time that the engine, with work pending, waited for other requests to join a pass.",
                    Buckets{0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03})),
      rows_by_kind_(RowCounters(*registry_)),
      memory_bytes_(BuildGauge()
                        .Name("mechinterp_memory_bytes")
                        .Help("Bytes of memory the engine holds besides the weights, by use.")
                        .Register(*registry_)),
      reserved_bytes_(Gauge(*registry_, "mechinterp_reserved_bytes",
                            "Bytes reserved for requests in progress, by estimate.")),
      device_bytes_(Gauge(*registry_, "mechinterp_device_allocated_bytes",
                          "Bytes of device memory allocated by this process; on the CPU, resident memory.")),
      cache_usage_(
          Gauge(*registry_, "mechinterp_kv_cache_usage_ratio",
                "Keys and values of requests in progress, as a share of the memory that requests can "
                "have: --memory-limit less what is always taken; without one, the device's memory.")),
      limit_bytes_(Gauge(*registry_, "mechinterp_memory_limit_bytes",
                         "Bytes that --memory-limit allows; 0: no limit.")),
      fixed_bytes_(Gauge(*registry_, "mechinterp_memory_fixed_bytes",
                         "Bytes of that which the weights and the scratch of passes always take.")),
      requests_in_progress(
          Gauge(*registry_, "mechinterp_requests_in_progress", "Requests admitted to the engine.")),
      queued_rows(Gauge(*registry_, "mechinterp_queued_rows", "Token positions queued for a forward pass.")),
      failed_passes(Counter(*registry_, "mechinterp_failed_passes_total",
                            "Forward passes that failed: a device error, or not enough memory.")),
      prompt_tokens(Counter(*registry_, "mechinterp_prompt_tokens_total", "Prompt tokens accepted.")),
      generated_tokens(Counter(*registry_, "mechinterp_generated_tokens_total", "Tokens generated.")),
      patch_runs(Counter(*registry_, "mechinterp_patch_runs_total",
                         "Patched runs of RunWithPatch that finished; those of sweeps are sweep_runs.")),
      sweep_runs(Counter(*registry_, "mechinterp_sweep_runs_total", "Patched runs finished in sweeps.")),
      circuit_runs(Counter(*registry_, "mechinterp_circuit_runs_total", "Circuits evaluated.")),
      sweep_computed_token_layers(Counter(*registry_, "mechinterp_sweep_computed_token_layers_total",
                                          "Positions x layers that sweeps computed.")),
      sweep_naive_token_layers(Counter(*registry_, "mechinterp_sweep_naive_token_layers_total",
                                       "Positions x layers that one full pass per run would have computed.")),
      generations(*registry_),
      store(*registry_) {}

void ModelMetrics::SetModel(const engine::Model& model) {
  device_ = model.device();
  const engine::Quantization quantization = model.formats().quantization;
  BuildGauge()
      .Name("mechinterp_model_info")
      .Help("The model that is served; always 1.")
      .Register(*registry_)
      .Add({{"name", model.name()},
            {"hash", model.content_hash()},
            {"quantization", quantization ? std::string(engine::InfoOf(*quantization).name) : "none"},
            {"device", engine::DeviceKindName(model.device().kind)}})
      .Set(1);
  Gauge(*registry_, "mechinterp_model_parameters", "Parameters of the model.")
      .Set(static_cast<double>(model.parameter_count()));
  auto& weight_bytes = BuildGauge()
                           .Name("mechinterp_model_weight_bytes")
                           .Help("Bytes of memory that the weights take, by format.")
                           .Register(*registry_);
  for (const auto& [format, bytes] : model.weight_bytes()) {
    weight_bytes.Add({{"format", std::string(engine::InfoOf(format).name)}}).Set(static_cast<double>(bytes));
  }
}

void ModelMetrics::SetLimit(int64_t limit_bytes, int64_t fixed_bytes) {
  limit_bytes_.Set(static_cast<double>(limit_bytes));
  fixed_bytes_.Set(static_cast<double>(fixed_bytes));
  cache_capacity_ = static_cast<double>(limit_bytes > 0 ? limit_bytes - fixed_bytes
                                                        : engine::MemoryOf(device_).total_bytes);
}

void ModelMetrics::ObservePass(const RowCounts& rows, int segments, absl::Duration duration) {
  int total = 0;
  for (int kind = 0; kind < kRowKindCount; ++kind) {
    rows_by_kind_[kind]->Increment(rows[kind]);
    total += rows[kind];
  }
  pass_rows_.Observe(total);
  pass_segments_.Observe(segments);
  pass_seconds_.Observe(absl::ToDoubleSeconds(duration));
  UpdateMemory();
}

void ModelMetrics::SetReserved(int64_t bytes) {
  reserved_bytes_.Set(static_cast<double>(bytes));
  // Not after every pass: on the CPU this reads a file.
  device_bytes_.Set(static_cast<double>(engine::MemoryOf(device_).allocated_bytes));
  UpdateMemory();
}

void ModelMetrics::UpdateMemory() {
  const engine::MemoryUse use = engine::CurrentMemoryUse();
  memory_bytes_.Add({{"part", "key_value_cache"}}).Set(static_cast<double>(use.key_value_caches));
  cache_usage_.Set(cache_capacity_ > 0 ? static_cast<double>(use.key_value_caches) / cache_capacity_ : 0);
  memory_bytes_.Add({{"part", "scratch"}}).Set(static_cast<double>(use.scratch));
}

void ModelMetrics::ObserveGatherWait(absl::Duration wait) {
  gather_seconds_.Observe(absl::ToDoubleSeconds(wait));
}

}  // namespace mechinterp
