#include "services/rpc/service_methods.h"

#include "absl/strings/str_cat.h"
#include "services/common/status.h"
#include "spdlog/spdlog.h"

namespace mechinterp {
namespace {

[[noreturn]] void EndProgram(const std::string& mistake) {
  spdlog::critical("{}", mistake);
  std::abort();
}

}  // namespace

std::string Method::path() const {
  return absl::StrCat("/", descriptor->service()->full_name(), "/", descriptor->name());
}

absl::Status ServiceMethods::NotAMessage(const google::protobuf::Descriptor* type) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("the request is no message of type ", type->full_name()),
                         "MALFORMED_REQUEST");
}

void ServiceMethods::Add(const std::string& name, const MethodTraits& traits,
                         const google::protobuf::Descriptor* request,
                         const google::protobuf::Descriptor* response, bool streams,
                         std::function<absl::Status(Call&, grpc::ByteBuffer&)> handle) {
  const google::protobuf::MethodDescriptor* method = service_->FindMethodByName(name);
  if (method == nullptr || method->input_type() != request || method->output_type() != response ||
      method->server_streaming() != streams || method->client_streaming()) {
    EndProgram(absl::StrCat(service_->full_name(), " has no such method ", name));
  }
  methods_.push_back({method, traits, std::move(handle)});
}

const std::vector<Method>& ServiceMethods::Complete() const {
  if (static_cast<int>(methods_.size()) != service_->method_count()) {
    EndProgram(absl::StrCat(service_->full_name(), " has ", service_->method_count(), " methods, of which ",
                            methods_.size(), " are answered"));
  }
  return methods_;
}

}  // namespace mechinterp
