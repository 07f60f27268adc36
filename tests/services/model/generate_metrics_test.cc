// Generate's metrics are those that RunWithPatch measures of the same run.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

class GenerateMetrics : public testing::Test {
 protected:
  v1::GenerateRequest Request() {
    v1::GenerateRequest request;
    *request.mutable_prompt() = ToProto(fixture_.prompt("a"));
    request.mutable_sampling()->set_max_new_tokens(24);
    request.mutable_sampling()->set_ignore_stop_tokens(true);
    *request.mutable_metrics() = Parse<v1::MetricOptions>(
        "refusal_token_ids: 320 refusal_token_ids: 7 compliance_token_ids: 35 top_token_count: 5 "
        "refusal_openings { ids: 320 ids: 4 ids: 9 } refusal_openings { ids: 7 } "
        "compliance_openings { ids: 35 ids: 11 }");
    return request;
  }

  // Of the same prompt, interventions and metrics; some intervention is needed.
  v1::RunWithPatchResponse Patch(const v1::GenerateRequest& like, const v1::Intervention& intervention) {
    v1::RunWithPatchRequest request;
    *request.mutable_prompt() = like.prompt();
    *request.mutable_metrics() = like.metrics();
    *request.add_interventions() = intervention;
    grpc::ClientContext context;
    v1::RunWithPatchResponse response;
    const grpc::Status status = service_.stub().RunWithPatch(&context, request, &response);
    EXPECT_THAT(status, IsOk());
    return response;
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
  const v1::Intervention intervention_ = Parse<v1::Intervention>(
      "site { point: HOOK_POINT_Z layer: 0 } "
      "selector { heads: 1 scope: INTERVENTION_SCOPE_PROMPT_AND_GENERATED } zeroing {}");
};

TEST_F(GenerateMetrics, AreTheCleanRunsToTheLastBit) {
  const v1::GenerateRequest request = Request();
  const auto generated = service_.Generate(request);
  ASSERT_THAT(generated.status, IsOk());
  EXPECT_EQ(generated.tokens.size(), 24u);  // long past the position that is measured
  const v1::RunMetrics& metrics = generated.summary.metrics();
  EXPECT_TRUE(metrics.has_compliance_opening_log_probability());
  EXPECT_EQ(metrics.top_tokens_size(), 5);
  EXPECT_EQ(metrics.SerializeAsString(), Patch(request, intervention_).clean().SerializeAsString());
}

TEST_F(GenerateMetrics, AreThePatchedRunsWithInterventionsButForTheDivergence) {
  v1::GenerateRequest request = Request();
  *request.add_interventions() = intervention_;
  const auto generated = service_.Generate(request);
  ASSERT_THAT(generated.status, IsOk());
  v1::RunMetrics patched = Patch(request, intervention_).patched();
  EXPECT_GT(patched.kl_from_clean(), 0);
  patched.clear_kl_from_clean();
  EXPECT_EQ(generated.summary.metrics().SerializeAsString(), patched.SerializeAsString());
}

TEST_F(GenerateMetrics, CountWhatIsListedTwiceOnce) {
  v1::GenerateRequest request = Request();
  v1::MetricOptions& metrics = *request.mutable_metrics();
  metrics = Parse<v1::MetricOptions>(
      "refusal_token_ids: [7, 320] refusal_openings { ids: 7 } compliance_openings { ids: 35 }");
  const v1::RunMetrics once = service_.Generate(request).summary.metrics();
  metrics = Parse<v1::MetricOptions>(
      "refusal_token_ids: [320, 7, 320, 7, 7] "
      "refusal_openings { ids: [7, 1] } refusal_openings { ids: 7 } refusal_openings { ids: [7, 2] } "
      "refusal_openings { ids: 7 } compliance_openings { ids: 35 } compliance_openings { ids: [35, 11] }");
  const auto generated = service_.Generate(request);
  ASSERT_THAT(generated.status, IsOk());
  EXPECT_EQ(generated.summary.metrics().SerializeAsString(), once.SerializeAsString());
}

// The openings {t} for all tokens t are every continuation there is.
TEST_F(GenerateMetrics, OpeningsSumToOneHoweverTheyRepeat) {
  v1::GenerateRequest request = Request();
  request.clear_metrics();
  for (uint32_t token = 0; token < 512; ++token) {
    request.mutable_metrics()->add_refusal_openings()->add_ids(token);
    if (token % 16 == 0) request.mutable_metrics()->add_refusal_openings()->add_ids(token);
    if (token % 64 == 0)
      request.mutable_metrics()->mutable_refusal_openings()->Add()->mutable_ids()->Add(token);
  }
  const auto generated = service_.Generate(request);
  ASSERT_THAT(generated.status, IsOk());
  EXPECT_NEAR(generated.summary.metrics().refusal_opening_log_probability(), 0, 1e-6);
}

TEST_F(GenerateMetrics, ComeOnlyWhenAskedFor) {
  v1::GenerateRequest request = Request();
  request.clear_metrics();
  EXPECT_FALSE(service_.Generate(request).summary.has_metrics());
  request.mutable_metrics();
  const auto generated = service_.Generate(request);
  EXPECT_TRUE(generated.summary.has_metrics());
  EXPECT_FALSE(generated.summary.metrics().has_logit_difference());
}

TEST_F(GenerateMetrics, LeaveTheContinuationAsItIs) {
  v1::GenerateRequest request = Request();
  request.mutable_sampling()->set_temperature(1.5);
  const auto measured = service_.Generate(request);
  request.clear_metrics();
  EXPECT_EQ(measured.summary.continuation().SerializeAsString(),
            service_.Generate(request).summary.continuation().SerializeAsString());
}

}  // namespace
}  // namespace mechinterp
