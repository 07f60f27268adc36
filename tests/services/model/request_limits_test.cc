#include "services/model/request_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "mechinterp/v1/model_service.pb.h"
#include "services/common/status.h"
#include "services/engine/weights/pass_scratch.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> FieldsOver(const google::protobuf::Message& request) {
  return FieldsAtFault(ToGrpcStatus(CheckRequestLimits(request)));
}

TEST(RequestLimits, AreBeyondWhatStudiesAsk) {
  v1::RunPatchSweepRequest request;
  for (int i = 0; i < 20'000; ++i) request.add_sets()->add_interventions()->mutable_zeroing();
  for (int i = 0; i < 1000; ++i) request.mutable_base()->add_interventions()->mutable_zeroing();
  request.mutable_prompt()->set_text(std::string(1 << 20, 'a'));
  EXPECT_THAT(CheckRequestLimits(request), IsOk());
}

TEST(RequestLimits, NameWhatHoldsTooMuchAndHowMuchItMay) {
  v1::RunPatchSweepRequest request;
  for (int i = 0; i < 3; ++i) request.add_sets();
  for (int i = 0; i < 4097; ++i) request.mutable_sets(2)->add_interventions();
  request.mutable_prompt()->set_text(std::string((4 << 20) + 1, 'a'));
  for (int i = 0; i < 4097; ++i) request.mutable_metrics()->add_refusal_openings();
  EXPECT_THAT(FieldsOver(request),
              ElementsAre("prompt.text", "sets[2].interventions", "metrics.refusal_openings"));
  EXPECT_THAT(CheckRequestLimits(request).message(), HasSubstr("4097 entries, of which there may be 4096"));

  v1::ListHookPointsRequest list;
  list.set_name_pattern(std::string(257, '*'));
  EXPECT_THAT(FieldsOver(list), ElementsAre("name_pattern"));
  v1::RunWithCacheRequest cache;
  cache.mutable_filter()->add_name_patterns("*");
  cache.mutable_filter()->add_name_patterns(std::string(1000, '?'));
  EXPECT_THAT(FieldsOver(cache), ElementsAre("filter.name_patterns[1]"));
  for (int i = 0; i < 300; ++i) cache.mutable_filter()->add_name_patterns("*");
  EXPECT_THAT(FieldsOver(cache), ElementsAre("filter.name_patterns"));
}

TEST(RequestLimits, TellOfTheFirstHundredOfMany) {
  v1::RunCircuitRequest request;
  for (int i = 0; i < 5000; ++i) request.add_nodes(std::string(300, 'x'));
  const absl::Status status = CheckRequestLimits(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(status.message().size(), 100'000u);
}

// What an attack sent: each is refused, at once, and the server goes on.
class HostileRequests : public ::testing::Test {
 protected:
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (v1::ModelService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                   Response*),
                    const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    Response response;
    return (service_.stub().*method)(&context, request, &response);
  }

  ServiceFixture service_{engine::Fixture("llama3-gqa").model()};
};

TEST_F(HostileRequests, AreRefusedByField) {
  v1::RunWithPatchRequest patch;
  patch.mutable_prompt()->mutable_token_ids()->add_ids(1);
  for (int i = 0; i < 100'000; ++i) patch.add_interventions()->mutable_zeroing();
  EXPECT_THAT(FieldsAtFault(Call(&v1::ModelService::Stub::RunWithPatch, patch)),
              ElementsAre("interventions"));

  v1::ListHookPointsRequest list;
  list.set_name_pattern(std::string(40'000'000, '*'));
  EXPECT_THAT(FieldsAtFault(Call(&v1::ModelService::Stub::ListHookPoints, list)),
              ElementsAre("name_pattern"));

  v1::DetokenizeRequest ids;
  ids.mutable_ids()->Resize(10'000'000, 4'000'000'000u);
  EXPECT_THAT(FieldsAtFault(Call(&v1::ModelService::Stub::Detokenize, ids)), ElementsAre("ids"));
}

// Three million bad ids are one mistake, not three million messages.
TEST_F(HostileRequests, CostNoMoreThanTheyAreLong) {
  v1::RunWithPatchRequest patch;
  patch.mutable_prompt()->mutable_token_ids()->mutable_ids()->Resize(3'000'000, 4'000'000'000u);
  patch.add_interventions();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Call(&v1::ModelService::Stub::RunWithPatch, patch).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

// A grid copies its prototype for every cell: what that takes is reserved before it is done.
TEST(HostileGrids, AreHeldToTheMemoryLimit) {
  const auto model = engine::Fixture("llama3-gqa").model();
  ModelServiceOptions options;
  options.memory_limit_bytes = model->total_weight_bytes() +
                               engine::ScratchBytes(model->config(), options.scheduler.max_batch_rows) +
                               (64 << 20);
  ServiceFixture service(model, options);
  v1::RunPatchSweepRequest request;
  for (int i = 0; i < 40; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  *request.mutable_metrics() = Parse<v1::MetricOptions>("refusal_token_ids: 1 compliance_token_ids: 2");
  v1::SweepGrid& grid = *request.mutable_grid();
  grid.add_points(v1::HOOK_POINT_RESID_PRE);
  grid.add_axes(v1::SWEEP_AXIS_POSITION);
  grid.add_axes(v1::SWEEP_AXIS_DIM_GROUP);
  grid.set_dims_per_group(1);
  v1::Tensor& tensor = *grid.mutable_prototype()->mutable_replacement()->mutable_source()->mutable_tensor();
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(250'000);
  tensor.set_data(std::string(1'000'000, '\0'));
  const auto swept = service.Sweep(request);
  EXPECT_EQ(swept.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(swept.status)), "MEMORY_LIMIT");
}

}  // namespace
}  // namespace mechinterp
