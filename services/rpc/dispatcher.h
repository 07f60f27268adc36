#ifndef SERVICES_RPC_DISPATCHER_H_
#define SERVICES_RPC_DISPATCHER_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "grpcpp/generic/async_generic_service.h"
#include "services/rpc/access_control.h"
#include "services/rpc/reflection_call.h"
#include "services/rpc/request_log.h"
#include "services/rpc/rpc_metrics.h"
#include "services/rpc/server_call.h"
#include "services/rpc/service_methods.h"
#include "services/rpc/span_exporter.h"
#include "services/rpc/token_rate.h"
#include "services/rpc/work_queue.h"

namespace mechinterp {

struct DispatcherOptions {
  // Of each lane: what runs the model, and what only looks something up.
  WorkQueueOptions work;
  WorkQueueOptions lookups = {/*max_running=*/4};
  CallLimits limits;
  RequestLogOptions log;
  // Where a span of each request goes; null: nowhere.
  std::shared_ptr<SpanExporter> spans;
};

// Where all calls of a server come in: who calls, what they may, which queue they wait in. One
// place for every method of every service, so that none can be forgotten. Thread-safe.
class Dispatcher final : public grpc::CallbackGenericService {
 public:
  // `access` null: everybody may call everything. `metrics` may be null.
  Dispatcher(const DispatcherOptions& options, std::shared_ptr<AccessControl> access,
             std::shared_ptr<RpcMetrics> metrics);
  // No call may be left.
  ~Dispatcher() override;

  // Answers these from now on; until then calls are refused with UNAVAILABLE, reason STARTING, for
  // the server may have something to load first. Once.
  void Serve(const std::vector<ServiceMethods>& services, bool reflection);

  // From now on calls are refused with UNAVAILABLE.
  void RefuseCalls();
  // Ends what waits in the queues with UNAVAILABLE; what runs goes on.
  void EndQueuedCalls();
  // Whether no call was left before `deadline`.
  bool WaitUntilIdle(absl::Time deadline);

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;

 private:
  struct Entry {
    Method method;
    std::optional<RpcMetrics::MethodSeries> series;
  };

  std::unique_ptr<WorkQueue> MakeQueue(WorkQueueOptions options, const std::string& lane);
  void Add(const ServiceMethods& methods);
  const Entry* Find(const std::string& path) const;  // null: no such method, or not yet
  // What is known of a call as it comes: its caller, or why it is refused.
  ServerCall::Setup Receive(grpc::GenericCallbackServerContext& context, const Entry* entry);
  absl::Status Admit(const grpc::ServerContextBase& context, ServerCall::Setup& setup);
  void Finished(const Entry& entry, ServerCall& call);
  grpc::ServerGenericBidiReactor* Reflect(grpc::GenericCallbackServerContext& context,
                                          const absl::Status& refusal);
  void Watch();
  // As of now, for a loop without the lock.
  std::vector<std::shared_ptr<ServerCall>> Calls();
  std::vector<std::shared_ptr<ReflectionCall>> ReflectionCalls();

  const DispatcherOptions options_;
  const std::shared_ptr<AccessControl> access_;
  const std::shared_ptr<RpcMetrics> metrics_;
  // Written before is_ready_, and never afterwards.
  std::unordered_map<std::string, Entry> methods_;  // by path
  std::atomic<bool> is_ready_ = false;
  Entry unknown_;
  TokenRate rate_;
  std::shared_ptr<const Reflection> reflection_;  // null: nobody may ask

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, std::shared_ptr<ServerCall>> calls_;
  std::map<ReflectionCall*, std::shared_ptr<ReflectionCall>> reflection_calls_;
  int64_t last_id_ = 0;
  bool refuses_ = false;
  bool ended_ = false;

  std::array<std::unique_ptr<WorkQueue>, kLaneCount> queues_;
  std::thread watch_;  // last: it uses all of the above
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_DISPATCHER_H_
