#include "tests/services/model/service_fixture.h"

#include <cstring>

#include "google/rpc/error_details.pb.h"
#include "services/common/overloaded.h"
#include "services/common/tensor_bytes.h"
#include "services/common/tensor_proto.h"
#include "services/model/response_building.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

v1::ActivationSource SourceOf(const engine::ActivationSource& source) {
  v1::ActivationSource result;
  *result.mutable_prompt()->mutable_prompt() = ToProto(std::get<engine::TokenizedPrompt>(source.origin));
  return result;
}

v1::Tensor TensorOf(const engine::HostTensor& tensor) { return MakeTensor(tensor.shape, tensor.values); }

}  // namespace

ServiceFixture::ServiceFixture(std::shared_ptr<const engine::Model> model, const ModelServiceOptions& options)
    : service_(std::move(model), options, metrics_) {
  RpcServerOptions rpc;
  rpc.registry = registry_;
  auto server = RpcServer::Start(rpc, {service_.Methods()});
  EXPECT_THAT(server, IsOk());
  server_ = *std::move(server);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  stub_ = v1::ModelService::NewStub(grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server_->port()),
                                                              grpc::InsecureChannelCredentials(), arguments));
}

ServiceFixture::Cached ServiceFixture::RunWithCache(const v1::RunWithCacheRequest& request) {
  Cached cached;
  grpc::ClientContext context;
  auto reader = stub_->RunWithCache(&context, request);
  v1::RunWithCacheResponse response;
  while (reader->Read(&response)) {
    if (response.has_header()) {
      cached.header = response.header();
      for (const v1::ActivationInfo& info : cached.header.activations()) {
        const size_t count = request.store() ? 0 : info.byte_count() / ElementBytes(info.data_type()).value();
        cached.tensors[info.name()] = {{info.shape().begin(), info.shape().end()}, std::vector<float>(count)};
      }
    } else if (response.has_chunk()) {
      const v1::ActivationChunk& chunk = response.chunk();
      const v1::ActivationInfo& info = cached.header.activations(chunk.activation_index());
      EXPECT_EQ(chunk.crc32(), Crc32(chunk.data()));
      DecodeValues(chunk.data(), info.data_type(),
                   cached.tensors[info.name()].values.data() +
                       chunk.offset_bytes() / ElementBytes(info.data_type()).value());
    } else {
      cached.summary = response.summary();
    }
  }
  cached.status = reader->Finish();
  return cached;
}

ServiceFixture::Generated ServiceFixture::Generate(const v1::GenerateRequest& request) {
  Generated generated;
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_header()) generated.header = response.header();
    if (response.has_token()) generated.tokens.push_back(response.token());
    if (response.has_summary()) generated.summary = response.summary();
  }
  generated.status = reader->Finish();
  return generated;
}

ServiceFixture::Swept ServiceFixture::Sweep(const v1::RunPatchSweepRequest& request) {
  Swept swept;
  grpc::ClientContext context;
  auto reader = stub_->RunPatchSweep(&context, request);
  v1::RunPatchSweepResponse response;
  while (reader->Read(&response)) {
    if (response.has_header()) swept.header = response.header();
    if (response.has_result()) swept.results[response.result().set_index()] = response.result();
    if (response.has_summary()) swept.summary = response.summary();
  }
  swept.status = reader->Finish();
  return swept;
}

v1::Prompt ToProto(const engine::TokenizedPrompt& prompt) {
  v1::Prompt result;
  for (engine::TokenId id : prompt.ids) result.mutable_token_ids()->add_ids(id);
  return result;
}

google::protobuf::RepeatedPtrField<v1::Intervention> ToProto(const engine::InterventionSet& interventions) {
  google::protobuf::RepeatedPtrField<v1::Intervention> result;
  for (const engine::Intervention& intervention : interventions) {
    v1::Intervention& proto = *result.Add();
    proto.mutable_site()->set_point(ToProto(intervention.site.point));
    proto.mutable_site()->set_layer(intervention.site.layer);
    v1::Selector& selector = *proto.mutable_selector();
    for (int head : intervention.selector.heads) selector.add_heads(head);
    for (int dim : intervention.selector.dims) selector.add_dims(dim);
    for (int index : intervention.selector.positions.indices)
      selector.mutable_positions()->add_indices(index);
    std::visit(Overloaded{
                   [&](const engine::Replacement& edit) {
                     *proto.mutable_replacement()->mutable_source() = SourceOf(edit.source);
                   },
                   [&](const engine::Zeroing&) { proto.mutable_zeroing(); },
                   [&](const engine::MeanReplacement& edit) {
                     for (const auto& source : edit.sources) {
                       *proto.mutable_mean_replacement()->add_sources() = SourceOf(source);
                     }
                   },
                   [&](const engine::Addition& edit) {
                     *proto.mutable_addition()->mutable_vector() = TensorOf(edit.vector);
                     proto.mutable_addition()->set_scale(edit.scale);
                   },
                   [&](const engine::ProjectionRemoval& edit) {
                     *proto.mutable_projection_removal()->mutable_direction() = TensorOf(edit.direction);
                   },
                   [](const auto&) { FAIL() << "no fixture has this edit"; },
               },
               intervention.edit);
  }
  return result;
}

std::vector<std::pair<std::string, std::string>> ViolationsOf(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  std::vector<std::pair<std::string, std::string>> violations;
  for (const auto& any : details.details()) {
    google::rpc::BadRequest bad;
    if (!any.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations())
      violations.emplace_back(violation.field(), violation.description());
  }
  return violations;
}

std::vector<std::string> FieldsAtFault(const grpc::Status& status) {
  std::vector<std::string> fields;
  for (const auto& [field, description] : ViolationsOf(status)) fields.push_back(field);
  return fields;
}

}  // namespace mechinterp
