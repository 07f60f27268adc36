// RunMeanActivations over gRPC: the moments of activations that RunWithCache returns, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "services/common/tensor_bytes.h"
#include "tests/services/model/service_fixture.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::SizeIs;

struct Means {
  grpc::Status status;
  v1::MeanActivationsHeader header;
  std::map<std::string, std::vector<float>> tensors;
  v1::RunSummary summary;
};

class MeanActivationsRpc : public testing::Test {
 protected:
  Means Run(const v1::RunMeanActivationsRequest& request) {
    grpc::ClientContext context;
    const auto reader = service_.stub().RunMeanActivations(&context, request);
    Means means;
    v1::RunMeanActivationsResponse message;
    while (reader->Read(&message)) {
      if (message.has_header()) means.header = message.header();
      if (message.has_summary()) means.summary = message.summary();
      if (!message.has_chunk()) continue;
      const v1::ActivationChunk& chunk = message.chunk();
      EXPECT_EQ(chunk.crc32(), Crc32(chunk.data()));
      const v1::ActivationInfo& info = means.header.activations(static_cast<int>(chunk.activation_index()));
      std::vector<float>& values = means.tensors[info.name()];
      values.resize(info.byte_count() / sizeof(float));
      DecodeValues(chunk.data(), info.data_type(), values.data() + chunk.offset_bytes() / sizeof(float));
    }
    means.status = reader->Finish();
    return means;
  }

  // Prompts of these lengths.
  static v1::RunMeanActivationsRequest Request(const std::string& text, const std::vector<int>& lengths) {
    auto request = Parse<v1::RunMeanActivationsRequest>(text);
    for (size_t i = 0; i < lengths.size(); ++i) {
      v1::Prompt& prompt = *request.add_prompts();
      for (int t = 0; t < lengths[i]; ++t) {
        prompt.mutable_token_ids()->add_ids(static_cast<uint32_t>((31 * i + 7 * t) % 200 + 3));
      }
    }
    return request;
  }

  // Each prompt's own activation, as RunWithCache returns it.
  std::vector<std::vector<float>> Fetched(const v1::RunMeanActivationsRequest& request,
                                          const std::string& name) {
    std::vector<std::vector<float>> all;
    for (const v1::Prompt& prompt : request.prompts()) {
      v1::RunWithCacheRequest one;
      *one.mutable_prompt() = prompt;
      *one.mutable_interventions() = request.interventions();
      *one.mutable_filter() = request.filter();
      const ServiceFixture::Cached cached = service_.RunWithCache(one);
      EXPECT_THAT(cached.status, IsOk());
      all.push_back(cached.tensors.at(name).values);
    }
    return all;
  }

  // Two passes over the fetched values, in double precision.
  void ExpectMoments(const v1::RunMeanActivationsRequest& request, const Means& means) {
    for (const auto& [name, values] : means.tensors) {
      const auto fetched = Fetched(request, name);
      const size_t count = fetched.front().size();
      ASSERT_EQ(values.size(), 2 * count) << name;
      for (size_t i = 0; i < count; ++i) {
        double sum = 0, squares = 0;
        for (const auto& one : fetched) sum += one[i];
        const double mean = sum / static_cast<double>(fetched.size());
        for (const auto& one : fetched) squares += (one[i] - mean) * (one[i] - mean);
        const double variance = squares / (static_cast<double>(fetched.size()) - 1);
        ASSERT_NEAR(values[i], mean, 1e-6 * std::max(1.0, std::abs(mean))) << name << " " << i;
        ASSERT_NEAR(values[count + i], variance, 1e-5 * std::max(1e-3, variance)) << name << " " << i;
      }
    }
  }

  engine::Fixture fixture_{"llama3-gqa"};
  ServiceFixture service_{fixture_.model()};
};

TEST_F(MeanActivationsRpc, AreTheMomentsOfFetchedActivations) {
  const auto request = Request(
      "filter { name_patterns: 'blocks.*.hook_resid_pre' name_patterns: 'blocks.2.attn.hook_z' "
      "positions { indices: [-3, -1] } }",
      {5, 9, 4, 12, 7});
  const Means means = Run(request);
  ASSERT_THAT(means.status, IsOk());
  EXPECT_EQ(means.header.prompt_count(), 5u);
  EXPECT_EQ(means.header.model().model_hash(), fixture_.model()->content_hash());
  EXPECT_THAT(means.header.activations(), SizeIs(5));
  EXPECT_THAT(means.header.activations(0).shape(), ElementsAre(2, 2, fixture_.model()->config().d_model));
  EXPECT_EQ(means.summary.total_byte_count(), [&] {
    size_t bytes = 0;
    for (const auto& [name, values] : means.tensors) bytes += values.size() * sizeof(float);
    return bytes;
  }());
  ExpectMoments(request, means);
}

// More rows than fit into one pass, all positions, with an edit in force.
TEST_F(MeanActivationsRpc, OfManyPromptsUnderInterventions) {
  const auto request = Request(
      "filter { name_patterns: 'blocks.3.hook_resid_post' name_patterns: 'logits' }"
      "interventions { sites { points: HOOK_POINT_MLP_OUT layers: [1, 2] } scaling { factor: 0.5 } }",
      std::vector<int>(60, 20));
  const Means means = Run(request);
  ASSERT_THAT(means.status, IsOk());
  ExpectMoments(request, means);
  EXPECT_EQ(Run(request).tensors, means.tensors);  // bit by bit
}

TEST_F(MeanActivationsRpc, OfOnePromptHaveNoVariance) {
  const auto request = Request("filter { name_patterns: 'hook_embed' }", {3});
  const Means means = Run(request);
  ASSERT_THAT(means.status, IsOk());
  const std::vector<float>& values = means.tensors.at("hook_embed");
  const std::vector<float> fetched = Fetched(request, "hook_embed").front();
  EXPECT_EQ(std::vector<float>(values.begin(), values.begin() + fetched.size()), fetched);
  EXPECT_EQ(std::vector<float>(values.begin() + fetched.size(), values.end()),
            std::vector<float>(fetched.size(), 0));
}

TEST_F(MeanActivationsRpc, RefusesWhatCannotBeAveraged) {
  EXPECT_THAT(
      ViolationsOf(Run(Request("filter { name_patterns: 'hook_embed' }", {3, 4})).status),
      ElementsAre(Pair("prompts[1]", HasSubstr("has 4 of the positions selected, prompts[0] has 3"))));
  EXPECT_THAT(ViolationsOf(Run(Request("filter { name_patterns: 'blocks.0.attn.*' }", {3, 3})).status),
              ElementsAre(Pair("filter", HasSubstr("attention scores and patterns"))));
  EXPECT_THAT(FieldsAtFault(Run(Request("filter { name_patterns: 'hook_embed' }", {})).status),
              ElementsAre("prompts"));
  EXPECT_THAT(FieldsAtFault(Run(Request("", {3})).status), ElementsAre("filter"));
  EXPECT_THAT(
      FieldsAtFault(
          Run(Request("filter { name_patterns: 'hook_embed' positions { indices: 7 } }", {9, 3})).status),
      ElementsAre("filter.positions.indices[0]", "prompts[1]"));
}

}  // namespace
}  // namespace mechinterp
