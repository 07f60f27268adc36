#ifndef SERVICES_RPC_SERVICE_METHODS_H_
#define SERVICES_RPC_SERVICE_METHODS_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "services/rpc/call.h"
#include "services/rpc/caller.h"

namespace mechinterp {

// Where a method's calls wait and run: what only looks something up does not stand behind what
// runs the model.
enum class Lane { kLookup, kWork };
inline constexpr int kLaneCount = 2;

// What a caller needs for a method beside a token.
enum class Access { kRead, kWrite };

struct MethodTraits {
  Lane lane = Lane::kLookup;
  Priority priority = Priority::kInteractive;
  Access access = Access::kRead;
};

struct Method {
  const google::protobuf::MethodDescriptor* descriptor = nullptr;
  MethodTraits traits;
  // Parses the request and answers it; on a worker's thread.
  std::function<absl::Status(Call& call, grpc::ByteBuffer& request)> handle;

  std::string path() const;  // "/mechinterp.v1.ModelService/Generate"
};

// The methods of one service and what answers them. Thread-safe once filled.
class ServiceMethods {
 public:
  explicit ServiceMethods(const google::protobuf::ServiceDescriptor* service) : service_(service) {}

  // What every request is checked by before its handler sees it. Before any method is added.
  using RequestCheck = absl::Status (*)(const google::protobuf::Message& request);
  void set_check(RequestCheck check) { check_ = check; }

  // `handler` must be thread-safe. Ends the program for a method that the service does not have
  // or that has other messages: a mistake of the programmer's.
  template <typename Request, typename Response>
  void AddUnary(const std::string& name, const MethodTraits& traits,
                std::function<absl::Status(Call&, const Request&, Response&)> handler) {
    Add(name, traits, Request::descriptor(), Response::descriptor(), /*streams=*/false,
        [handler = std::move(handler), check = check_](Call& call, grpc::ByteBuffer& bytes) {
          Request request;
          if (absl::Status status = ParseRequest(bytes, request, check); !status.ok()) return status;
          Response response;
          if (absl::Status status = handler(call, request, response); !status.ok()) return status;
          return call.Write(Serialized(response));
        });
  }

  template <typename Request, typename Response>
  void AddStream(const std::string& name, const MethodTraits& traits,
                 std::function<absl::Status(Call&, const Request&, MessageWriter<Response>&)> handler) {
    Add(name, traits, Request::descriptor(), Response::descriptor(), /*streams=*/true,
        [handler = std::move(handler), check = check_](Call& call, grpc::ByteBuffer& bytes) {
          Request request;
          if (absl::Status status = ParseRequest(bytes, request, check); !status.ok()) return status;
          MessageWriter<Response> writer(call);
          return handler(call, request, writer);
        });
  }

  // All of the service's, each with its handler. Ends the program where one is missing.
  const std::vector<Method>& Complete() const;
  const google::protobuf::ServiceDescriptor& service() const { return *service_; }

 private:
  template <typename Request>
  static absl::Status ParseRequest(grpc::ByteBuffer& bytes, Request& request, RequestCheck check) {
    const grpc::Status status = grpc::SerializationTraits<Request>::Deserialize(&bytes, &request);
    if (!status.ok()) return NotAMessage(Request::descriptor());
    return check == nullptr ? absl::OkStatus() : check(request);
  }
  static absl::Status NotAMessage(const google::protobuf::Descriptor* type);

  void Add(const std::string& name, const MethodTraits& traits, const google::protobuf::Descriptor* request,
           const google::protobuf::Descriptor* response, bool streams,
           std::function<absl::Status(Call&, grpc::ByteBuffer&)> handle);

  const google::protobuf::ServiceDescriptor* const service_;
  RequestCheck check_ = nullptr;
  std::vector<Method> methods_;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_SERVICE_METHODS_H_
