#include "services/rpc/reflection.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "grpcpp/support/status.h"

namespace mechinterp {
namespace {

using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

void Collect(const FileDescriptor* file, std::set<const FileDescriptor*>& files) {
  if (!files.insert(file).second) return;
  for (int i = 0; i < file->dependency_count(); ++i) Collect(file->dependency(i), files);
}

// The file and all that it imports.
void AddFile(const FileDescriptor* file, ServerReflectionResponse& response) {
  std::set<const FileDescriptor*> files;
  Collect(file, files);
  files.erase(file);
  auto& list = *response.mutable_file_descriptor_response();
  const auto add = [&list](const FileDescriptor* one) {
    google::protobuf::FileDescriptorProto proto;
    one->CopyTo(&proto);
    *list.add_file_descriptor_proto() = proto.SerializeAsString();
  };
  add(file);  // first, as clients expect
  for (const FileDescriptor* one : files) add(one);
}

void AddError(grpc::StatusCode code, const std::string& message, ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(code);
  response.mutable_error_response()->set_error_message(message);
}

}  // namespace

ServerReflectionResponse Reflection::Answer(const ServerReflectionRequest& request) const {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  std::set<const FileDescriptor*> told;
  for (const std::string& name : services_) {
    if (const auto* service = pool.FindServiceByName(name)) Collect(service->file(), told);
  }
  const FileDescriptor* file = nullptr;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : services_)
        response.mutable_list_services_response()->add_service()->set_name(name);
      return response;
    case ServerReflectionRequest::kFileByFilename:
      file = pool.FindFileByName(request.file_by_filename());
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      file = pool.FindFileContainingSymbol(request.file_containing_symbol());
      break;
    default:
      AddError(grpc::StatusCode::UNIMPLEMENTED, "the services have no extensions", response);
      return response;
  }
  if (file == nullptr || told.count(file) == 0) {
    AddError(grpc::StatusCode::NOT_FOUND, "no service has such a file or symbol", response);
  } else {
    AddFile(file, response);
  }
  return response;
}

}  // namespace mechinterp
