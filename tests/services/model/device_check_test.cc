// A server whose device computes wrongly: it says so, serves nothing, and serves again
// once a check passes. The device is libtorch on the CPU.

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/common/status.h"
#include "services/engine/weights/device_matrix.h"
#include "services/engine/weights/weights.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
using testing::StartsWith;

class DeviceCheckTest : public testing::Test {
 protected:
  static std::shared_ptr<const engine::Model> Load(bool by_libtorch) {
    engine::LoadOptions options;
    options.device.by_libtorch = by_libtorch;
    return *engine::Model::Load(engine::TestData("llama3-gqa"), options);
  }

  v1::CheckDeviceResponse Check(ServiceFixture& server) {
    grpc::ClientContext context;
    v1::CheckDeviceResponse response;
    const grpc::Status status = server.stub().CheckDevice(&context, {}, &response);
    EXPECT_THAT(status, IsOk());
    return response;
  }

  ServiceFixture::Generated Generate(ServiceFixture& server) {
    return server.Generate(
        Parse<v1::GenerateRequest>("prompt { token_ids { ids: 1 ids: 5 ids: 9 } } sampling { max_new_tokens: "
                                   "2 ignore_stop_tokens: true }"));
  }
};

TEST_F(DeviceCheckTest, ResponsesNameTheCheckThatPassedLast) {
  ServiceFixture server(Load(/*by_libtorch=*/true));
  EXPECT_EQ(Generate(server).header.model().self_check_id(), "");
  const v1::CheckDeviceResponse check = Check(server);
  EXPECT_TRUE(check.passed());
  EXPECT_THAT(check.layers(), SizeIs(testing::Ge(2)));
  EXPECT_LT(check.head_relative_error(), check.tolerance());
  EXPECT_THAT(check.model().self_check_id(), SizeIs(16));
  EXPECT_EQ(Generate(server).header.model().self_check_id(), check.model().self_check_id());
}

TEST_F(DeviceCheckTest, ADeviceThatComputesWronglyServesNothingUntilItPasses) {
  const auto model = Load(/*by_libtorch=*/true);
  ServiceFixture server(model);
  const at::Tensor& gate = model->weights().layers[0].gate.device->pieces[0];
  gate.mul_(2);
  const v1::CheckDeviceResponse failed = Check(server);
  EXPECT_FALSE(failed.passed());
  EXPECT_THAT(failed.problem(), StartsWith("layer 0: relative error "));
  EXPECT_EQ(failed.model().self_check_id(), "");
  const grpc::Status refused = Generate(server).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ErrorReason(FromGrpcStatus(refused)), "DEVICE_CHECK_FAILED");
  EXPECT_THAT(refused.error_message(), HasSubstr("layer 0: relative error "));
  gate.mul_(0.5);
  EXPECT_TRUE(Check(server).passed());
  EXPECT_THAT(Generate(server).status, IsOk());
}

TEST_F(DeviceCheckTest, NothingIsServedBeforeACheckThatIsRequired) {
  ServiceFixture server(Load(/*by_libtorch=*/true));
  server.service().device_check().Require();
  EXPECT_EQ(Generate(server).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_TRUE(Check(server).passed());
  EXPECT_THAT(Generate(server).status, IsOk());
}

TEST_F(DeviceCheckTest, TheListenerHearsOfEveryCheck) {
  const auto model = Load(/*by_libtorch=*/true);
  ServiceFixture server(model);
  std::vector<bool> heard;
  server.service().device_check().set_listener([&](bool may_serve) { heard.push_back(may_serve); });
  const at::Tensor& head = model->weights().unembedding.device->pieces[0];
  Check(server);
  head.mul_(2);
  Check(server);
  head.mul_(0.5);
  Check(server);
  EXPECT_EQ(heard, std::vector<bool>({true, false, true}));
}

TEST_F(DeviceCheckTest, TheCpuPassesItsOwn) {
  ServiceFixture server(Load(/*by_libtorch=*/false));
  const v1::CheckDeviceResponse check = Check(server);
  EXPECT_TRUE(check.passed());
  for (const v1::LayerCheck& layer : check.layers()) EXPECT_EQ(layer.relative_error(), 0);
  EXPECT_EQ(check.head_relative_error(), 0);
}

TEST_F(DeviceCheckTest, GetModelTellsTheDeviceAndItsMemory) {
  ServiceFixture server(Load(/*by_libtorch=*/false));
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_THAT(server.stub().GetModel(&context, {}, &model), IsOk());
  EXPECT_EQ(model.device().device(), v1::DEVICE_CPU);
  EXPECT_THAT(model.device().name(), HasSubstr("instructions"));
  EXPECT_GT(model.device().memory_byte_count(), model.device().allocated_byte_count());
  EXPECT_GT(model.device().allocated_byte_count(), 0u);
}

}  // namespace
}  // namespace mechinterp
