#include "services/rpc/dispatcher.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "services/common/status.h"
#include "services/common/trace_context.h"

namespace mechinterp {
namespace {

constexpr absl::Duration kWatchInterval = absl::Seconds(1);

absl::Status ShuttingDown() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "the server is shutting down", "SHUTTING_DOWN");
}

// "ipv4:127.0.0.1:40312" and "ipv6:%5B::1%5D:40312" as "127.0.0.1:40312", "[::1]:40312".
std::string PeerAddress(const std::string& uri) {
  const std::string text = absl::StrReplaceAll(uri, {{"%5B", "["}, {"%5D", "]"}});
  for (const char* scheme : {"ipv4:", "ipv6:"}) {
    if (absl::StartsWith(text, scheme)) return text.substr(5);
  }
  return text;
}

std::string HostOf(const std::string& peer) {
  const size_t colon = peer.rfind(':');
  return colon == std::string::npos ? peer : peer.substr(0, colon);
}

std::string Metadata(const grpc::ServerContextBase& context, const std::string& key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end() ? ""
                                                  : std::string(found->second.data(), found->second.length());
}

// Which trace the call is part of: the client's, or a new one where spans are exported.
void SetTrace(const std::string& traceparent, bool exports, ServerCall::Setup& setup) {
  if (const std::optional<TraceContext> client = ParseTraceparent(traceparent)) {
    setup.trace_id = client->trace_id;
    setup.parent_span_id = client->span_id;
    setup.is_sampled = client->is_sampled;
  } else if (exports) {
    setup.trace_id = NewTrace().trace_id;
  }
  if (exports) setup.span_id = NewSpanId();
}

}  // namespace

Dispatcher::Dispatcher(const DispatcherOptions& options, std::shared_ptr<AccessControl> access,
                       std::shared_ptr<RpcMetrics> metrics)
    : options_(options), access_(std::move(access)), metrics_(std::move(metrics)) {
  queues_[static_cast<int>(Lane::kLookup)] = MakeQueue(options.lookups, "lookup");
  queues_[static_cast<int>(Lane::kWork)] = MakeQueue(options.work, "work");
  if (metrics_ != nullptr) unknown_.series.emplace(metrics_->Series("unary", "unknown", "unknown"));
  watch_ = std::thread([this] { Watch(); });
}

std::unique_ptr<WorkQueue> Dispatcher::MakeQueue(WorkQueueOptions options, const std::string& lane) {
  if (metrics_ != nullptr) {
    options.on_change = [series = metrics_->Lane(lane, options.max_queued)](int running, int queued) {
      series.running.Set(running);
      series.waiting.Set(queued);
    };
  }
  return std::make_unique<WorkQueue>(options);
}

Dispatcher::~Dispatcher() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  watch_.join();
}

void Dispatcher::Add(const ServiceMethods& methods) {
  for (const Method& method : methods.Complete()) {
    Entry& entry = methods_[method.path()];
    entry.method = method;
    if (metrics_ == nullptr) continue;
    entry.series.emplace(metrics_->Series(method.descriptor->server_streaming() ? "server_stream" : "unary",
                                          methods.service().full_name(), method.descriptor->name()));
  }
}

void Dispatcher::Serve(const std::vector<ServiceMethods>& services, bool reflection) {
  std::vector<std::string> names;
  for (const ServiceMethods& methods : services) {
    Add(methods);
    names.push_back(methods.service().full_name());
  }
  if (reflection) reflection_ = std::make_shared<const Reflection>(std::move(names));
  is_ready_ = true;
}

const Dispatcher::Entry* Dispatcher::Find(const std::string& path) const {
  if (!is_ready_) return nullptr;
  const auto found = methods_.find(path);
  return found == methods_.end() ? nullptr : &found->second;
}

absl::Status Dispatcher::Admit(const grpc::ServerContextBase& context, ServerCall::Setup& setup) {
  setup.caller.name = setup.host;
  if (access_ != nullptr) {
    absl::StatusOr<Caller> caller = access_->Identify(Metadata(context, "authorization"), setup.host);
    if (!caller.ok()) {
      if (metrics_ != nullptr) metrics_->auth_failures.Increment();
      return caller.status();
    }
    setup.caller = *std::move(caller);
  }
  // Not before it is known who asks: who has no token learns nothing of what there is.
  if (!is_ready_) {
    return ErrorWithReason(absl::StatusCode::kUnavailable,
                           "the server is starting: its model is being loaded", "STARTING");
  }
  if (setup.method == nullptr) {
    return ErrorWithReason(absl::StatusCode::kUnimplemented, "the server has no such method",
                           "UNKNOWN_METHOD");
  }
  if (absl::Status status = CheckPermission(setup.caller, setup.method->traits); !status.ok()) return status;
  return setup.method->traits.lane == Lane::kWork ? rate_.Check(setup.caller, absl::Now()) : absl::OkStatus();
}

ServerCall::Setup Dispatcher::Receive(grpc::GenericCallbackServerContext& context, const Entry* entry) {
  ServerCall::Setup setup;
  setup.context = &context;
  setup.limits = options_.limits;
  setup.peer = PeerAddress(context.peer());
  setup.host = HostOf(setup.peer);
  SetTrace(Metadata(context, "traceparent"), options_.spans != nullptr, setup);
  setup.wants_prompt = options_.log.with_prompts;
  if (entry != nullptr) setup.method = &entry->method;
  setup.refusal = Admit(context, setup);
  if (setup.method != nullptr) setup.queue = queues_[static_cast<int>(setup.method->traits.lane)].get();
  setup.on_done = [this, counted = entry == nullptr ? &unknown_ : entry](ServerCall& call) {
    Finished(*counted, call);
  };
  return setup;
}

grpc::ServerGenericBidiReactor* Dispatcher::Reflect(grpc::GenericCallbackServerContext& context,
                                                    const absl::Status& refusal) {
  const auto call =
      std::make_shared<ReflectionCall>(context, reflection_, refusal, [this](ReflectionCall* done) {
        std::shared_ptr<ReflectionCall> last;  // destroyed without the lock
        const std::lock_guard lock(mutex_);
        last = std::move(reflection_calls_.at(done));
        reflection_calls_.erase(done);
        changed_.notify_all();
      });
  {
    const std::lock_guard lock(mutex_);
    reflection_calls_.emplace(call.get(), call);
  }
  call->Begin();
  return call.get();
}

grpc::ServerGenericBidiReactor* Dispatcher::CreateReactor(grpc::GenericCallbackServerContext* context) {
  const Entry* const entry = Find(context->method());
  ServerCall::Setup setup = Receive(*context, entry);
  if (is_ready_ && reflection_ != nullptr &&
      (context->method() == kReflectionPath || context->method() == kReflectionPathAlpha)) {
    // Who may call anything may ask what there is.
    return Reflect(*context, absl::IsUnimplemented(setup.refusal) ? absl::OkStatus() : setup.refusal);
  }
  if (const auto& series = (entry == nullptr ? unknown_ : *entry).series) {
    series->started.Increment();
    series->in_flight.Increment();
  }
  std::shared_ptr<ServerCall> call;
  {
    const std::lock_guard lock(mutex_);
    if (refuses_ && setup.refusal.ok()) setup.refusal = ShuttingDown();
    setup.id = ++last_id_;
    call = std::make_shared<ServerCall>(std::move(setup));
    calls_.emplace(call->id(), call);
  }
  call->Begin();
  return call.get();
}

void Dispatcher::Finished(const Entry& entry, ServerCall& call) {
  const RequestRecord record = call.Record();
  const int64_t tokens = record.facts.prompt_tokens + record.facts.new_tokens;
  rate_.Spend(call.caller(), tokens, absl::Now());
  if (metrics_ != nullptr) {
    entry.series->in_flight.Decrement();
    entry.series->received.Increment(static_cast<double>(record.messages_received));
    entry.series->sent.Increment(static_cast<double>(record.messages_sent));
    entry.series->queue_seconds.Observe(absl::ToDoubleSeconds(record.queued));
    metrics_->CountHandled(*entry.series, static_cast<grpc::StatusCode>(record.status.code()), record.took);
    metrics_->CountClient(record.client, tokens);
    if (record.status.code() == absl::StatusCode::kResourceExhausted ||
        record.status.code() == absl::StatusCode::kAborted) {
      metrics_->CountRejection(ErrorReason(record.status));
    }
  }
  LogRequest(record, options_.log);
  if (options_.spans != nullptr && record.is_sampled) options_.spans->Add(record);
  std::shared_ptr<ServerCall> last;  // destroyed without the lock
  {
    const std::lock_guard lock(mutex_);
    const auto found = calls_.find(call.id());
    last = std::move(found->second);
    calls_.erase(found);
    changed_.notify_all();
  }
}

std::vector<std::shared_ptr<ServerCall>> Dispatcher::Calls() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ServerCall>> calls;
  calls.reserve(calls_.size());
  for (const auto& [id, call] : calls_) calls.push_back(call);
  return calls;
}

std::vector<std::shared_ptr<ReflectionCall>> Dispatcher::ReflectionCalls() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ReflectionCall>> calls;
  for (const auto& [raw, call] : reflection_calls_) calls.push_back(call);
  return calls;
}

void Dispatcher::RefuseCalls() {
  {
    const std::lock_guard lock(mutex_);
    refuses_ = true;
  }
  for (const std::shared_ptr<ReflectionCall>& call : ReflectionCalls()) call->End();
}

void Dispatcher::EndQueuedCalls() {
  for (const std::shared_ptr<ServerCall>& call : Calls()) call->Withdraw(ShuttingDown());
}

bool Dispatcher::WaitUntilIdle(absl::Time deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, absl::ToChronoTime(deadline),
                             [this] { return calls_.empty() && reflection_calls_.empty(); });
}

void Dispatcher::Watch() {
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, absl::ToChronoNanoseconds(kWatchInterval), [this] { return ended_; })) {
    lock.unlock();
    const absl::Time now = absl::Now();
    for (const std::shared_ptr<ServerCall>& call : Calls()) {
      call->CheckTime(now);
      if (access_ == nullptr) continue;
      if (absl::Status status = access_->Recheck(call->caller()); !status.ok()) call->Cancel(status);
    }
    for (const std::shared_ptr<ReflectionCall>& call : ReflectionCalls()) call->CheckTime(now);
    lock.lock();
  }
}

}  // namespace mechinterp
