// Spans, against a collector in this process.

#include "services/rpc/span_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "clients/lib/connection.h"
#include "httplib.h"
#include "nlohmann/json.hpp"
#include "tests/services/rpc/fake_service.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;

// Takes what is posted to it, and answers as it is told.
class Collector {
 public:
  using Answer = std::function<void(const json& request, httplib::Response& response)>;

  explicit Collector(Answer answer = nullptr) : answer_(std::move(answer)) {
    server_.Post("/v1/traces", [this](const httplib::Request& request, httplib::Response& response) {
      json parsed = json::parse(request.body, nullptr, false);
      {
        const std::lock_guard lock(mutex_);
        content_types_.insert(request.get_header_value("Content-Type"));
        requests_.push_back(parsed);
        changed_.notify_all();
      }
      response.set_content("{}", "application/json");
      if (answer_ != nullptr) answer_(parsed, response);
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~Collector() {
    server_.stop();
    thread_.join();
  }

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<json> AwaitRequests(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return requests_.size() >= count; });
    return requests_;
  }
  size_t request_count() {
    const std::lock_guard lock(mutex_);
    return requests_.size();
  }
  // All spans so far.
  std::vector<json> Spans() {
    const std::lock_guard lock(mutex_);
    std::vector<json> spans;
    for (const json& request : requests_) {
      for (const json& span : request["resourceSpans"][0]["scopeSpans"][0]["spans"]) spans.push_back(span);
    }
    return spans;
  }
  std::set<std::string> content_types() {
    const std::lock_guard lock(mutex_);
    return content_types_;
  }

 private:
  const Answer answer_;
  httplib::Server server_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<json> requests_;
  std::set<std::string> content_types_;
  std::thread thread_;
};

// The attribute's value, of the one kind that it has.
json AttributeOf(const json& holder, const std::string& key) {
  for (const json& attribute : holder["attributes"]) {
    if (attribute["key"] != key) continue;
    EXPECT_EQ(attribute.size(), 2) << key;
    EXPECT_EQ(attribute["value"].size(), 1) << key;
    return attribute["value"];
  }
  return nullptr;
}

// A call may be recorded after the one that its client made next.
std::vector<json> SortedBy(const std::string& field, std::vector<json> spans) {
  std::sort(spans.begin(), spans.end(), [&](const json& a, const json& b) { return a[field] < b[field]; });
  return spans;
}

RequestRecord Record(int64_t id) {
  RequestRecord record;
  record.id = id;
  record.method = "mechinterp.v1.ModelService/Generate";
  record.client = "alice";
  record.trace_id = "0af7651916cd43dd8448eb211c80319c";
  record.span_id = "b7ad6b7169203331";
  record.start = absl::FromUnixNanos(1'700'000'000'123'456'789);
  record.took = absl::Milliseconds(1500);
  record.queued = absl::Milliseconds(250);
  return record;
}

class SpanExporterTest : public testing::Test {
 protected:
  // That sends what it gets at its end, or when a batch is full.
  std::unique_ptr<SpanExporter> Start(const std::string& endpoint, SpanExportOptions options = {}) {
    options.endpoint = endpoint;
    options.interval = absl::Hours(1);
    options.first_pause = absl::Milliseconds(1);
    options.last_words = absl::Minutes(5);
    auto exporter = SpanExporter::Start(options, metrics_);
    EXPECT_THAT(exporter, IsOk());
    return *std::move(exporter);
  }
  double exported() const { return metrics_->spans.exported.Value(); }
  double queue_full() const { return metrics_->spans.queue_full.Value(); }
  double undelivered() const { return metrics_->spans.undelivered.Value(); }
  double refused() const { return metrics_->spans.refused.Value(); }

  std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  std::shared_ptr<RpcMetrics> metrics_ = std::make_shared<RpcMetrics>(registry_);
};

// Field by field as opentelemetry-proto and its JSON mapping have it: ids in hex, 64-bit numbers as decimal
// strings, enums as numbers.
TEST(SpansAsJson, IsOtlp) {
  RequestRecord record = Record(7);
  record.parent_span_id = "00f067aa0ba902b7";
  record.facts.passes = 3;
  record.facts.prompt_tokens = 5;
  record.facts.new_tokens = 2;
  record.facts.prompt = "secret";
  record.messages_sent = 4;
  record.facts.engine_wait = absl::Milliseconds(125);
  const json request = json::parse(SpansAsJson({"abstract-model-server", "i1"}, {record}));

  ASSERT_EQ(request["resourceSpans"].size(), 1);
  const json& of_resource = request["resourceSpans"][0];
  EXPECT_EQ(AttributeOf(of_resource["resource"], "service.name"),
            json({{"stringValue", "abstract-model-server"}}));
  EXPECT_EQ(AttributeOf(of_resource["resource"], "service.instance.id"), json({{"stringValue", "i1"}}));
  EXPECT_TRUE(AttributeOf(of_resource["resource"], "service.version")["stringValue"].is_string());
  ASSERT_EQ(of_resource["scopeSpans"].size(), 1);
  EXPECT_EQ(of_resource["scopeSpans"][0]["scope"]["name"], "abstract");
  ASSERT_EQ(of_resource["scopeSpans"][0]["spans"].size(), 1);
  const json& span = of_resource["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(span["spanId"], "b7ad6b7169203331");
  EXPECT_EQ(span["parentSpanId"], "00f067aa0ba902b7");
  EXPECT_EQ(span["name"], "mechinterp.v1.ModelService/Generate");
  EXPECT_EQ(span["kind"], 2);  // SPAN_KIND_SERVER
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000123456789");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000001623456789");
  EXPECT_EQ(span["status"], json::object());  // STATUS_CODE_UNSET
  EXPECT_EQ(AttributeOf(span, "rpc.system"), json({{"stringValue", "grpc"}}));
  EXPECT_EQ(AttributeOf(span, "rpc.service"), json({{"stringValue", "mechinterp.v1.ModelService"}}));
  EXPECT_EQ(AttributeOf(span, "rpc.method"), json({{"stringValue", "Generate"}}));
  EXPECT_EQ(AttributeOf(span, "rpc.grpc.status_code"), json({{"intValue", "0"}}));
  EXPECT_EQ(AttributeOf(span, "abstract.client"), json({{"stringValue", "alice"}}));
  EXPECT_EQ(AttributeOf(span, "abstract.queue_seconds"), json({{"doubleValue", 0.25}}));
  EXPECT_EQ(AttributeOf(span, "abstract.engine_wait_seconds"), json({{"doubleValue", 0.125}}));
  EXPECT_EQ(AttributeOf(span, "abstract.passes"), json({{"intValue", "3"}}));
  EXPECT_EQ(AttributeOf(span, "abstract.prompt_tokens"), json({{"intValue", "5"}}));
  EXPECT_EQ(AttributeOf(span, "abstract.new_tokens"), json({{"intValue", "2"}}));
  EXPECT_EQ(AttributeOf(span, "abstract.messages_sent"), json({{"intValue", "4"}}));
  EXPECT_THAT(request.dump(), testing::Not(HasSubstr("secret")));
}

TEST(SpansAsJson, HasErrorsThatAreTheServersOwn) {
  RequestRecord record = Record(1);
  record.status = absl::InvalidArgumentError("a client's mistake");
  json request = json::parse(SpansAsJson({}, {record}));
  json span = request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(span["status"], json::object());
  EXPECT_FALSE(span.contains("parentSpanId"));
  EXPECT_EQ(AttributeOf(span, "rpc.grpc.status_code"), json({{"intValue", "3"}}));
  record.status = absl::InternalError("bytes that are no text: \xff\xfe");
  request = json::parse(SpansAsJson({}, {record}));
  span = request["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(span["status"]["code"], 2);  // STATUS_CODE_ERROR
  EXPECT_THAT(span["status"]["message"].get<std::string>(), HasSubstr("bytes that are no text"));
}

TEST_F(SpanExporterTest, SendsASpanOfEveryRequestOfAServer) {
  Collector collector;
  RpcServerOptions options;
  options.otlp.endpoint = collector.endpoint();
  options.otlp.service_name = "some-server";
  options.registry = registry_;
  {
    FakeServer server(options);
    const auto stub = server.NewStub();
    EXPECT_THAT(ListRuns(*stub), IsOk());
    grpc::ClientContext traced, unsampled;
    traced.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    v1::GetRunResponse run;
    EXPECT_FALSE(stub->GetRun(&traced, {}, &run).ok());
    // Whoever began this trace wants no spans.
    unsampled.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
    EXPECT_FALSE(stub->GetRun(&unsampled, {}, &run).ok());
  }
  const std::vector<json> spans = SortedBy("name", collector.Spans());
  ASSERT_EQ(spans.size(), 2);
  EXPECT_EQ(spans[1]["name"], "mechinterp.v1.AnalysisService/ListRuns");
  EXPECT_THAT(spans[1]["traceId"].get<std::string>(), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_FALSE(spans[1].contains("parentSpanId"));
  EXPECT_EQ(spans[0]["name"], "mechinterp.v1.AnalysisService/GetRun");
  EXPECT_EQ(spans[0]["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(spans[0]["parentSpanId"], "b7ad6b7169203331");
  EXPECT_EQ(AttributeOf(spans[0], "abstract.reason"), json({{"stringValue", "INVALID_REQUEST"}}));
  EXPECT_NE(spans[1]["spanId"], spans[0]["spanId"]);
  for (const json& span : spans) {
    EXPECT_THAT(span["spanId"].get<std::string>(), MatchesRegex("[0-9a-f]{16}"));
    int64_t begin = 0, end = 0;
    ASSERT_TRUE(absl::SimpleAtoi(span["startTimeUnixNano"].get<std::string>(), &begin));
    ASSERT_TRUE(absl::SimpleAtoi(span["endTimeUnixNano"].get<std::string>(), &end));
    EXPECT_LE(begin, end);
    EXPECT_EQ(AttributeOf(span, "abstract.client"), json({{"stringValue", "127.0.0.1"}}));
  }
  const json resource = collector.AwaitRequests(1)[0]["resourceSpans"][0]["resource"];
  EXPECT_EQ(AttributeOf(resource, "service.name"), json({{"stringValue", "some-server"}}));
  EXPECT_EQ(collector.content_types(), std::set<std::string>{"application/json"});
  EXPECT_EQ(exported(), 2);
}

TEST_F(SpanExporterTest, HasClientsSayWhichTraceTheyBelongTo) {
  setenv("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 1);
  Collector collector;
  RpcServerOptions options;
  options.otlp.endpoint = collector.endpoint();
  {
    FakeServer server(options);
    const auto stub = v1::AnalysisService::NewStub(ConnectTo(server.address()));
    EXPECT_THAT(ListRuns(*stub), IsOk());
    // A call's own goes before.
    grpc::ClientContext context;
    context.AddMetadata("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    v1::ListRunsResponse response;
    EXPECT_THAT(stub->ListRuns(&context, {}, &response), IsOk());
  }
  const std::vector<json> spans = SortedBy("traceId", collector.Spans());
  ASSERT_EQ(spans.size(), 2);
  EXPECT_EQ(spans[0]["traceId"], "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(spans[1]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(spans[1]["parentSpanId"], "00f067aa0ba902b7");
}

TEST_F(SpanExporterTest, SendsInBatchesAndTheRestAtItsEnd) {
  Collector collector;
  {
    const auto exporter = Start(collector.endpoint() + "/", {.max_batch = 4});
    for (int i = 0; i < 10; ++i) exporter->Add(Record(i));
    collector.AwaitRequests(2);
  }
  EXPECT_EQ(collector.Spans().size(), 10);
  for (const json& request : collector.AwaitRequests(3)) {
    EXPECT_LE(request["resourceSpans"][0]["scopeSpans"][0]["spans"].size(), 4);
  }
  EXPECT_EQ(exported(), 10);
}

TEST_F(SpanExporterTest, DropsWhatASlowCollectorDoesNotTakeAndHoldsNobodyUp) {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  Collector collector([&](const json&, httplib::Response&) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return open; });
  });
  {
    const auto exporter = Start(collector.endpoint(), {.max_queued = 6, .max_batch = 2});
    exporter->Add(Record(0));
    exporter->Add(Record(1));
    collector.AwaitRequests(1);  // which hangs
    for (int i = 0; i < 100; ++i) exporter->Add(Record(i));
    EXPECT_EQ(queue_full(), 94);
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
  EXPECT_EQ(exported(), 8);
  EXPECT_EQ(collector.Spans().size(), 8);
}

TEST_F(SpanExporterTest, SendsAgainWhatACollectorCouldNotTake) {
  std::atomic<int> asked = 0;
  Collector collector(
      [&](const json&, httplib::Response& response) { response.status = ++asked < 3 ? 503 : 200; });
  {
    const auto exporter = Start(collector.endpoint(), {.max_batch = 2});
    for (int i = 0; i < 2; ++i) exporter->Add(Record(i));
    const std::vector<json> requests = collector.AwaitRequests(3);
    EXPECT_EQ(requests[0], requests[2]);
  }
  EXPECT_EQ(exported(), 2);
  EXPECT_EQ(undelivered(), 0);
}

TEST_F(SpanExporterTest, DoesNotInsistOnWhatIsRefused) {
  Collector collector([](const json&, httplib::Response& response) { response.status = 400; });
  {
    const auto exporter = Start(collector.endpoint(), {.max_batch = 2});
    for (int i = 0; i < 2; ++i) exporter->Add(Record(i));
    collector.AwaitRequests(1);
  }
  EXPECT_EQ(collector.request_count(), 1);
  EXPECT_EQ(refused(), 2);
  EXPECT_EQ(exported(), 0);
}

TEST_F(SpanExporterTest, CountsWhatACollectorRefusesOfABatch) {
  Collector collector([](const json&, httplib::Response& response) {
    response.set_content(R"({"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}})",
                         "application/json");
  });
  {
    const auto exporter = Start(collector.endpoint());
    for (int i = 0; i < 5; ++i) exporter->Add(Record(i));
  }
  EXPECT_EQ(exported(), 2);
  EXPECT_EQ(refused(), 3);
}

TEST_F(SpanExporterTest, TakesNoAnswerOfWhateverKindAmiss) {
  for (const char* answer :
       {"", "nonsense", "[]", "{\"partialSuccess\":7}", "{\"partialSuccess\":{}}",
        "{\"partialSuccess\":{\"rejectedSpans\":-3}}", "{\"partialSuccess\":{\"rejectedSpans\":\"x\"}}"}) {
    Collector collector(
        [&](const json&, httplib::Response& response) { response.set_content(answer, "text/plain"); });
    const double before = exported();
    {
      const auto exporter = Start(collector.endpoint());
      exporter->Add(Record(1));
    }
    EXPECT_EQ(exported(), before + 1) << answer;
  }
  Collector collector([&](const json&, httplib::Response& response) {
    response.set_content("{\"partialSuccess\":{\"rejectedSpans\":1000}}" + std::string(1 << 20, ' '),
                         "text/plain");
  });
  {
    const auto exporter = Start(collector.endpoint());
    exporter->Add(Record(1));
  }
  EXPECT_EQ(refused(), 1);  // no more than there were
}

TEST_F(SpanExporterTest, LetsAServerServeWithoutACollector) {
  RpcServerOptions options;
  options.otlp.endpoint = "http://127.0.0.1:1";
  options.registry = registry_;
  {
    FakeServer server(options);
    for (int i = 0; i < 3; ++i) EXPECT_THAT(ListRuns(*server.NewStub()), IsOk());
  }
  EXPECT_EQ(exported(), 0);
  EXPECT_EQ(undelivered(), 3);
}

TEST_F(SpanExporterTest, TakesUrlsAlone) {
  for (const char* endpoint :
       {"nonsense", "ftp://127.0.0.1", "http://", "file:///etc/passwd", "127.0.0.1:4318"}) {
    EXPECT_THAT(
        SpanExporter::Start({.endpoint = endpoint}, metrics_),
        StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("--otlp-endpoint"), HasSubstr("URL"))))
        << endpoint;
  }
  EXPECT_THAT(SpanExporter::Start({.endpoint = "http://me:secret@127.0.0.1:4318"}, metrics_),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("password"), testing::Not(HasSubstr("secret")))));
}

}  // namespace
}  // namespace mechinterp
