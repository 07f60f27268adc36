#ifndef TESTS_SERVICES_RPC_FAKE_SERVICE_H_
#define TESTS_SERVICES_RPC_FAKE_SERVICE_H_

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "mechinterp/v1/analysis_service.grpc.pb.h"
#include "services/rpc/rpc_server.h"

namespace mechinterp {

// An AnalysisService by its interface, whose methods do what tests of servers need:
//   ListRuns         answers at once, on the lane of lookups
//   GetRun           fails with many long violations
//   GetCircuit       fails with INTERNAL, in two lines
//   GetRanking       throws what `exception` says
//   ImportRun        answers; it is the method that writes
//   DeleteRun        waits until it is told to end, or cancelled
//   ExportRun        streams `stream_count` messages of `stream_bytes`, written by the handler
//   RenderDashboard  the same as what is left to send when the handler has returned
class FakeService {
 public:
  ServiceMethods Methods();

  // Waits until so many calls of DeleteRun are being handled.
  void WaitForDeletes(int count);

  std::atomic<bool> must_end = false;
  std::atomic<int> stream_count = 100;
  std::atomic<size_t> stream_bytes = 1 << 20;
  std::atomic<int> streams_in_handlers = 0;
  std::string exception;

 private:
  absl::Status Delete(Call& call);

  std::mutex mutex_;
  std::condition_variable changed_;
  int deletes_ = 0;
};

// A server around it, and channels of their own.
class FakeServer {
 public:
  explicit FakeServer(RpcServerOptions options = {});

  std::string address() const;
  std::shared_ptr<grpc::Channel> NewChannel(grpc::ChannelArguments arguments = {}) const;
  std::unique_ptr<v1::AnalysisService::Stub> NewStub() const;
  RpcServer& server() { return *server_; }
  FakeService& service() { return service_; }

 private:
  FakeService service_;
  std::unique_ptr<RpcServer> server_;
};

// Calls within `patience`.
grpc::Status ListRuns(v1::AnalysisService::Stub& stub, absl::Duration patience = absl::Seconds(20),
                      const std::string& token = "");
grpc::Status DeleteRun(v1::AnalysisService::Stub& stub, absl::Duration patience = absl::Seconds(20));

// A call of any method by its path with these bytes as its request; `response`, if given, gets the
// answer's.
grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                     const std::string& request, const std::string& token = "",
                     std::string* response = nullptr);

// What grpc.health.v1 says: 1 SERVING, 2 NOT_SERVING.
int AskHealth(const std::shared_ptr<grpc::Channel>& channel);

}  // namespace mechinterp

#endif  // TESTS_SERVICES_RPC_FAKE_SERVICE_H_
