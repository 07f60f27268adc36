// What /metrics tells, after requests that are known.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "services/common/text_file.h"
#include "services/model/generation_metrics.h"
#include "services/rpc/rpc_metrics.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using engine::FinishReason;
using engine::Fixture;

using Labels = std::map<std::string, std::string>;

// The series of that name with at least those labels; fails where there is not exactly one.
prometheus::ClientMetric Find(const prometheus::Registry& registry, const std::string& name,
                              const Labels& labels) {
  std::vector<prometheus::ClientMetric> found;
  for (const prometheus::MetricFamily& family : registry.Collect()) {
    if (family.name != name) continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      Labels has;
      for (const auto& label : metric.label) has[label.name] = label.value;
      if (std::includes(has.begin(), has.end(), labels.begin(), labels.end())) found.push_back(metric);
    }
  }
  EXPECT_EQ(found.size(), 1) << name;
  return found.empty() ? prometheus::ClientMetric() : found.front();
}

double Counter(const prometheus::Registry& registry, const std::string& name, const Labels& labels = {}) {
  return Find(registry, name, labels).counter.value;
}
double Gauge(const prometheus::Registry& registry, const std::string& name, const Labels& labels = {}) {
  return Find(registry, name, labels).gauge.value;
}
prometheus::ClientMetric::Histogram Histogram(const prometheus::Registry& registry, const std::string& name,
                                              const Labels& labels = {}) {
  return Find(registry, name, labels).histogram;
}

TEST(GenerationMeter, TellsTheTimesOfAGeneration) {
  prometheus::Registry registry;
  GenerationMetrics metrics(registry);
  const absl::Time begin = absl::FromUnixSeconds(1'000'000);
  GenerationMeter meter(metrics, begin, /*queued=*/absl::Milliseconds(250));
  meter.OnToken(begin + absl::Seconds(2), /*engine_wait=*/absl::Milliseconds(250));
  meter.OnToken(begin + absl::Milliseconds(2125), absl::Seconds(1));
  meter.OnToken(begin + absl::Milliseconds(2500), absl::Seconds(1));
  meter.OnEnd(begin + absl::Seconds(4), FinishReason::kStopToken, /*prompt_tokens=*/7);

  EXPECT_EQ(Histogram(registry, "mechinterp_time_to_first_token_seconds").sample_sum, 2);
  EXPECT_EQ(Histogram(registry, "mechinterp_request_queue_time_seconds").sample_sum, 0.5);
  EXPECT_EQ(Histogram(registry, "mechinterp_request_prefill_time_seconds").sample_sum, 1.5);
  EXPECT_EQ(Histogram(registry, "mechinterp_request_decode_time_seconds").sample_sum, 0.5);
  EXPECT_EQ(Histogram(registry, "mechinterp_e2e_request_latency_seconds").sample_sum, 4);
  const auto per_token = Histogram(registry, "mechinterp_time_per_output_token_seconds");
  EXPECT_EQ(per_token.sample_count, 2);
  EXPECT_EQ(per_token.sample_sum, 0.5);
  EXPECT_EQ(Histogram(registry, "mechinterp_request_prompt_tokens").sample_sum, 7);
  EXPECT_EQ(Histogram(registry, "mechinterp_request_generation_tokens").sample_sum, 3);
  EXPECT_EQ(Counter(registry, "mechinterp_request_success_total", {{"finished_reason", "stop"}}), 1);
}

// A clock that is set back makes no negative times, and waiting is never more than the whole.
TEST(GenerationMeter, OutlivesAClockThatIsSetBack) {
  prometheus::Registry registry;
  GenerationMetrics metrics(registry);
  const absl::Time begin = absl::FromUnixSeconds(1'000'000);
  GenerationMeter meter(metrics, begin, absl::Seconds(9));
  meter.OnToken(begin - absl::Seconds(3), absl::Seconds(1));
  meter.OnToken(begin - absl::Seconds(5), absl::Seconds(1));
  meter.OnEnd(begin - absl::Seconds(4), FinishReason::kMaxNewTokens, 1);
  for (const char* name :
       {"mechinterp_time_to_first_token_seconds", "mechinterp_request_queue_time_seconds",
        "mechinterp_request_prefill_time_seconds", "mechinterp_request_decode_time_seconds",
        "mechinterp_e2e_request_latency_seconds", "mechinterp_time_per_output_token_seconds"}) {
    EXPECT_EQ(Histogram(registry, name).sample_count, 1) << name;
    EXPECT_EQ(Histogram(registry, name).sample_sum, 0) << name;
  }
}

// vLLM's boundaries are all there, so that its panels fit.
TEST(GenerationMetrics, HaveTheBucketsThatPeopleKnow) {
  prometheus::Registry registry;
  const GenerationMetrics metrics(registry);
  const auto has = [&](const std::string& name, const std::set<double>& bounds) {
    std::set<double> found;
    for (const auto& bucket : Histogram(registry, name).bucket) found.insert(bucket.upper_bound);
    EXPECT_TRUE(std::includes(found.begin(), found.end(), bounds.begin(), bounds.end())) << name;
  };
  has("mechinterp_time_to_first_token_seconds",
      {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
       1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560});
  has("mechinterp_time_per_output_token_seconds",
      {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80});
  for (const char* name :
       {"mechinterp_e2e_request_latency_seconds", "mechinterp_request_queue_time_seconds",
        "mechinterp_request_prefill_time_seconds", "mechinterp_request_decode_time_seconds"}) {
    has(name, {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680});
  }
}

class MetricsOfRequests : public testing::Test {
 protected:
  v1::GenerateRequest Generation(uint32_t new_tokens) {
    v1::GenerateRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    request.mutable_sampling()->set_max_new_tokens(new_tokens);
    request.mutable_sampling()->set_ignore_stop_tokens(true);
    return request;
  }

  double Count(const std::string& name, const Labels& labels = {}) {
    return Counter(*service_.registry(), name, labels);
  }
  prometheus::ClientMetric::Histogram Times(const std::string& name, const Labels& labels = {}) {
    return Histogram(*service_.registry(), name, labels);
  }

  Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(MetricsOfRequests, CountGenerationsAndTheirTokens) {
  const auto prompt = static_cast<double>(fixture_.prompt("a").length());
  for (const uint32_t tokens : {5, 1}) ASSERT_THAT(service_.Generate(Generation(tokens)).status, IsOk());
  v1::GenerateRequest stopping = Generation(9);
  const auto free_run = service_.Generate(stopping);
  ASSERT_EQ(free_run.tokens.size(), 9);
  const uint32_t stop = free_run.tokens[3].token_id();
  uint32_t until_stop = 0;
  while (free_run.tokens[until_stop++].token_id() != stop) {
  }
  stopping.mutable_sampling()->add_stop_token_ids(stop);
  const auto stopped = service_.Generate(stopping);
  ASSERT_EQ(stopped.tokens.size(), until_stop);
  // Refused before it begins: no generation.
  EXPECT_FALSE(service_.Generate({}).status.ok());
  service_.Shutdown(absl::Seconds(5));  // all has been counted

  const double tokens = 5 + 1 + 9 + until_stop;
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "length"}}), 3);
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "stop"}}), 1);
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "abort"}}), 0);
  EXPECT_EQ(Count("mechinterp_prompt_tokens_total"), 4 * prompt);
  EXPECT_EQ(Count("mechinterp_generated_tokens_total"), tokens);
  EXPECT_EQ(Count("mechinterp_client_tokens_total", {{"client", "127.0.0.1"}}), 4 * prompt + tokens);
  EXPECT_EQ(Count("mechinterp_client_requests_total", {{"client", "127.0.0.1"}}), 5);
  EXPECT_EQ(Times("mechinterp_request_prompt_tokens").sample_sum, 4 * prompt);
  EXPECT_EQ(Times("mechinterp_request_generation_tokens").sample_sum, tokens);
  EXPECT_EQ(Times("mechinterp_queue_seconds", {{"grpc_method", "Generate"}}).sample_count, 5);
  EXPECT_EQ(Times("mechinterp_time_per_output_token_seconds").sample_count, tokens - 4);
  for (const char* name :
       {"mechinterp_time_to_first_token_seconds", "mechinterp_request_queue_time_seconds",
        "mechinterp_request_prefill_time_seconds", "mechinterp_request_decode_time_seconds",
        "mechinterp_e2e_request_latency_seconds", "mechinterp_request_generation_tokens"}) {
    EXPECT_EQ(Times(name).sample_count, 4) << name;
  }
  EXPECT_EQ(Gauge(*service_.registry(), "mechinterp_num_requests_running", {{"lane", "work"}}), 0);
  EXPECT_EQ(Gauge(*service_.registry(), "mechinterp_num_requests_waiting", {{"lane", "work"}}), 0);
  EXPECT_EQ(Gauge(*service_.registry(), "mechinterp_kv_cache_usage_ratio"), 0);
}

TEST_F(MetricsOfRequests, HaveTimesInTheirOrder) {
  ASSERT_THAT(service_.Generate(Generation(20)).status, IsOk());
  service_.Shutdown(absl::Seconds(5));
  const double first = Times("mechinterp_time_to_first_token_seconds").sample_sum;
  const double queue = Times("mechinterp_request_queue_time_seconds").sample_sum;
  const double prefill = Times("mechinterp_request_prefill_time_seconds").sample_sum;
  const double decode = Times("mechinterp_request_decode_time_seconds").sample_sum;
  const double whole = Times("mechinterp_e2e_request_latency_seconds").sample_sum;
  const double call = Times("grpc_server_handling_seconds", {{"grpc_method", "Generate"}}).sample_sum;
  constexpr double kRounding = 1e-8;
  EXPECT_GT(prefill, 0);
  EXPECT_GE(queue, 0);
  EXPECT_NEAR(queue + prefill, first, kRounding);
  EXPECT_NEAR(decode, Times("mechinterp_time_per_output_token_seconds").sample_sum, kRounding);
  EXPECT_GT(decode, 0);
  EXPECT_LE(first + decode, whole + kRounding);
  EXPECT_LE(whole, call + kRounding);
  EXPECT_LE(Times("mechinterp_queue_seconds", {{"grpc_method", "Generate"}}).sample_sum, queue + kRounding);
}

TEST_F(MetricsOfRequests, CountAGenerationThatItsClientLeft) {
  grpc::ClientContext context;
  auto reader = service_.stub().Generate(&context, Generation(8000));
  v1::GenerateResponse response;
  while (reader->Read(&response) && !response.has_token()) {
  }
  ASSERT_TRUE(response.has_token());
  context.TryCancel();
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  service_.Shutdown(absl::Seconds(5));
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "abort"}}), 1);
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "length"}}), 0);
  EXPECT_EQ(Count("grpc_server_handled_total", {{"grpc_code", "CANCELLED"}}), 1);
  EXPECT_EQ(Times("mechinterp_time_to_first_token_seconds").sample_count, 1);
  EXPECT_EQ(Times("mechinterp_e2e_request_latency_seconds").sample_count, 0);
}

TEST_F(MetricsOfRequests, CountPatchedRuns) {
  auto patch = Parse<v1::RunWithPatchRequest>(
      "interventions { site { point: HOOK_POINT_RESID_PRE layer: 1 } zeroing {} } "
      "metrics { refusal_token_ids: 1 compliance_token_ids: 2 }");
  *patch.mutable_prompt() = ToProto(fixture_.prompt("a"));
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    v1::RunWithPatchResponse response;
    ASSERT_THAT(service_.stub().RunWithPatch(&context, patch, &response), IsOk());
  }
  auto sweep = Parse<v1::RunPatchSweepRequest>("metrics { refusal_token_ids: 1 compliance_token_ids: 2 }");
  *sweep.mutable_prompt() = ToProto(fixture_.prompt("a"));
  for (int i = 0; i < 3; ++i) *sweep.add_sets()->mutable_interventions() = patch.interventions();
  ASSERT_THAT(service_.Sweep(sweep).status, IsOk());
  service_.Shutdown(absl::Seconds(5));
  EXPECT_EQ(Count("mechinterp_patch_runs_total"), 2);
  EXPECT_EQ(Count("mechinterp_sweep_runs_total"), 3);
  EXPECT_EQ(Count("mechinterp_request_success_total", {{"finished_reason", "length"}}), 0);
}

TEST_F(MetricsOfRequests, TellWhetherItServesAndWhatItTakes) {
  const prometheus::Registry& registry = *service_.registry();
  EXPECT_EQ(Gauge(registry, "mechinterp_serving"), 0);  // nobody has said so yet
  EXPECT_EQ(Gauge(registry, "mechinterp_memory_limit_bytes"), 0);
  EXPECT_GE(Gauge(registry, "mechinterp_memory_fixed_bytes"),
            static_cast<double>(fixture_.model()->total_weight_bytes()));
  EXPECT_EQ(Gauge(registry, "mechinterp_queue_capacity", {{"lane", "work"}}), WorkQueueOptions().max_queued);
  EXPECT_EQ(Gauge(registry, "mechinterp_connections_limit"), RpcServerOptions().max_connections);
}

// Every family of both servers stands in the README's table, and nothing else does.
TEST(Metrics, AreDocumented) {
  const auto registry = std::make_shared<prometheus::Registry>();
  RpcMetrics rpc(registry);
  rpc.CountHandled(rpc.Series("unary", "service", "method"), grpc::StatusCode::OK, absl::Seconds(1));
  rpc.Lane("work", 1);
  rpc.CountRejection("QUEUE_FULL");
  rpc.CountClient("alice", 1);
  ModelMetrics model(registry);
  model.SetModel(*Fixture("llama3-gqa").model());
  model.ObservePass({}, 1, absl::Seconds(1));
  std::set<std::string> made;
  for (const prometheus::MetricFamily& family : registry->Collect()) {
    if (!family.metric.empty()) made.insert(family.name);
  }

  const auto text = ReadTextFile(std::string(ABSTRACT_SOURCE_DIR) + "/services/model/README.md", 1 << 20);
  ASSERT_THAT(text, IsOk());
  std::set<std::string> documented;
  const std::regex row(R"(\n\| `((?:grpc_server|mechinterp)_[a-z0-9_]+)`)");
  for (std::sregex_iterator match(text->begin(), text->end(), row), end; match != end; ++match) {
    documented.insert((*match)[1]);
  }
  EXPECT_EQ(documented, made);
}

// However many clients there are, their series are few.
TEST(Metrics, HaveABoundOnClients) {
  const auto registry = std::make_shared<prometheus::Registry>();
  RpcMetrics rpc(registry);
  for (int i = 0; i < 1000; ++i) rpc.CountClient("client" + std::to_string(i), 2);
  EXPECT_EQ(Counter(*registry, "mechinterp_client_requests_total", {{"client", "client199"}}), 1);
  EXPECT_EQ(Counter(*registry, "mechinterp_client_requests_total", {{"client", "other"}}), 800);
  EXPECT_EQ(Counter(*registry, "mechinterp_client_tokens_total", {{"client", "other"}}), 1600);
  for (const prometheus::MetricFamily& family : registry->Collect()) EXPECT_LE(family.metric.size(), 201);
}

}  // namespace
}  // namespace mechinterp
