#ifndef SERVICES_RPC_REFLECTION_H_
#define SERVICES_RPC_REFLECTION_H_

#include <string>
#include <vector>

#include "grpc/reflection/v1/reflection.pb.h"
#include "grpcpp/support/byte_buffer.h"

namespace mechinterp {

// Both names under which clients ask.
inline constexpr char kReflectionPath[] = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
inline constexpr char kReflectionPathAlpha[] =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Answers questions about the services named, from the descriptors that the program was built
// with. Only files that these services need are told. Thread-safe.
class Reflection {
 public:
  // Full names: "mechinterp.v1.ModelService".
  explicit Reflection(std::vector<std::string> services) : services_(std::move(services)) {}

  grpc::reflection::v1::ServerReflectionResponse Answer(
      const grpc::reflection::v1::ServerReflectionRequest& request) const;

 private:
  const std::vector<std::string> services_;
};

}  // namespace mechinterp

#endif  // SERVICES_RPC_REFLECTION_H_
