#include "services/analysis/dashboard.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/analysis/study.h"
#include "tests/services/analysis/studies.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The dashboard is drawn in a browser, which tests/dashboard does; here is what
// the program puts into the page.
std::string Render(const v1::Study& study) {
  v1::GetRunResponse run;
  run.mutable_description()->set_run_id("run");
  run.mutable_description()->set_model_name(ModelName(study));
  *run.mutable_study() = study;
  const auto html = RenderDashboard(run);
  EXPECT_THAT(html, IsOk());
  return html.ok() ? *html : "";
}

std::string DataText(const std::string& html) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = html.find(open) + open.size();
  return html.substr(begin, html.find("</script>", begin) - begin);
}

nlohmann::json Data(const std::string& html) { return nlohmann::json::parse(DataText(html)); }

TEST(Dashboard, HoldsEverythingInOneFile) {
  const std::string html = Render(SmallStudy());
  EXPECT_THAT(html, HasSubstr("Plotly"));
  EXPECT_THAT(html, HasSubstr("prefers-color-scheme"));
  for (const char* slot : {"{{style}}", "{{plotly}}", "{{scripts}}", "{{data}}"})
    EXPECT_THAT(html, Not(HasSubstr(slot)));
  // Nothing is fetched; the policy forbids what a mistake might add.
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
  for (const char* fetch : {"<script src", "<link rel=\"stylesheet", "@import", "<img"}) {
    EXPECT_THAT(html.substr(0, html.find("id=\"data\"")), Not(HasSubstr(fetch)));
  }
}

TEST(Dashboard, EmbedsStudyRankingLayersAndCircuit) {
  const nlohmann::json data = Data(Render(SmallStudy()));
  EXPECT_EQ(data["run"]["study"]["baseline"]["harmful"]["rate"], 0.5);
  EXPECT_EQ(data["run"]["study"]["patching"]["layer_count"], 3);
  EXPECT_EQ(data["run"]["study"]["patching"]["ranking"][0]["component"]["name"], "L1.H0");
  EXPECT_EQ(data["run"]["study"]["patching"]["layers"].size(), 3);
  EXPECT_EQ(data["circuit"]["nodes"].size(), 3);
  EXPECT_EQ(data["circuit"]["edges"].size(), 3);
  EXPECT_EQ(data["run"]["study"]["circuit"]["nodes"][0]["noising"]["upper"], 0.75);
  EXPECT_EQ(data["version"], "0.1.0");
}

TEST(Dashboard, ShowsTheRankingAsStoredAndItsLeadersOnly) {
  v1::Study study = SmallStudy();
  for (int i = 0; i < 21; ++i) {
    v1::RankedComponent& ranked = *study.mutable_patching()->add_ranking();
    ranked.mutable_component()->set_name(absl::StrCat("stored ", i));
    ranked.set_score(1.0 / (i + 1));
  }
  const nlohmann::json ranking = Data(Render(study))["run"]["study"]["patching"]["ranking"];
  ASSERT_EQ(ranking.size(), 20);
  EXPECT_EQ(ranking[0]["component"]["name"], "stored 0");
}

TEST(Dashboard, LeavesMissingPartsOut) {
  const nlohmann::json study = Data(Render(SmallStudy()))["run"]["study"];
  EXPECT_FALSE(study.contains("ablation"));
  const nlohmann::json nothing = Data(Render(v1::Study()));
  EXPECT_EQ(nothing["run"].value("study", nlohmann::json::object()).size(), 0);
  EXPECT_EQ(nothing["circuit"]["nodes"].size(), 0);
  EXPECT_FALSE(Data(Render(FromText<v1::Study>("ablation {}")))["run"]["study"]["ablation"].contains(
      "held_out_baseline"));
}

TEST(Dashboard, KeepsHostileTextsWithinTheData) {
  const std::string hostile = "</script><script>alert(1)</script><!-- {{data}} /*{{plotly}}*/ \" \\ \u2028 ü";
  v1::Study study = SmallStudy();
  v1::JudgedResponse& response = *study.mutable_baseline()->add_responses();
  response.set_prompt(hostile);
  response.set_response(hostile);
  const std::string html = Render(study);
  EXPECT_THAT(DataText(html), Not(HasSubstr("<")));
  EXPECT_THAT(html, Not(HasSubstr("alert(1)</script>")));
  EXPECT_EQ(Data(html)["run"]["study"]["baseline"]["responses"][0]["prompt"], hostile);
  EXPECT_EQ(Data(html)["run"]["study"]["baseline"]["responses"][0]["response"], hostile);
}

TEST(Dashboard, KeepsOnlyTheOpeningsOfResponses) {
  v1::Study study = SmallStudy();
  std::string text;
  for (int i = 0; i < 200; ++i) text += "ü";
  study.mutable_baseline()->add_responses()->set_response(text);
  const std::string shown = Data(Render(study))["run"]["study"]["baseline"]["responses"][0]["response"];
  EXPECT_EQ(shown, absl::StrCat(text.substr(0, 160), "…"));
}

TEST(Dashboard, ShowsSamplesOfTheJudgedPointOnly) {
  const auto study = FromText<v1::Study>(R"pb(
    ablation {
      criterion { component_count: 4 }
      curves {
        top {
          component_count: 2
          samples { response: "two" }
        }
        top {
          component_count: 4
          samples { response: "four" }
        }
      }
      curves {
        top {
          component_count: 4
          samples { response: "other method" }
        }
      }
      held_out_top { samples { response: "held out" } }
    })pb");
  const std::string text = DataText(Render(study));
  EXPECT_THAT(text, HasSubstr("\"four\""));
  EXPECT_THAT(text, Not(HasSubstr("\"two\"")));
  EXPECT_THAT(text, Not(HasSubstr("other method")));
  EXPECT_THAT(text, Not(HasSubstr("held out")));
}

TEST(Dashboard, LeavesThePairsOfEffectsOut) {
  v1::Study study = SmallStudy();
  study.mutable_patching()->mutable_effects(0)->add_pair_effects(0.123456);
  EXPECT_THAT(DataText(Render(study)), Not(HasSubstr("0.123456")));
}

// A large model's neuron groups: 300 MB of results made a page of 203 MB.
TEST(Dashboard, HoldsOfNeuronGroupsTheRankingOnly) {
  v1::Study study = SmallStudy();
  study.mutable_patching()->set_neuron_count(1'000'000);
  for (uint32_t i = 0; i < 50'000; ++i) {
    v1::ComponentEffect& effect = *study.mutable_patching()->add_effects();
    effect.mutable_component()->set_kind(v1::COMPONENT_KIND_NEURON_GROUP);
    effect.mutable_component()->set_neuron_begin(4 + 8 * i);
    effect.mutable_component()->set_neuron_end(12 + 8 * i);
    effect.set_direction(v1::PATCH_DIRECTION_DENOISING);
    effect.mutable_effect()->set_mean(i == 777 ? 0.75 : 0);
  }
  const std::string html = Render(study);
  EXPECT_LT(DataText(html).size(), 100'000u);
  const nlohmann::json patching = Data(html)["run"]["study"]["patching"];
  EXPECT_EQ(patching["effects"].size(), 2u);  // the heads
  EXPECT_EQ(patching["ranking"][0]["component"]["neuron_begin"], 4 + 8 * 777);
}

TEST(Dashboard, DrawsTheLeadersOfACircuitAndListsAThousand) {
  v1::Study study = SmallStudy();
  v1::CircuitResults& circuit = *study.mutable_circuit();
  for (int i = 0; i < 1100; ++i) {
    v1::MeasuredNode& node = *circuit.add_nodes();
    node.set_name(absl::StrCat("L0.N", i));
    node.mutable_noising()->set_mean(i / 1000.0);
    v1::MeasuredEdge& edge = *circuit.add_edges();
    edge.set_sender(absl::StrCat("L", i, ".mlp"));
    edge.set_receiver("final");
    edge.mutable_noising()->set_mean(i / 1000.0);
    circuit.add_minimality();
  }
  const nlohmann::json data = Data(Render(study));
  EXPECT_EQ(data["circuit"]["nodes"].size(), 12u);
  EXPECT_EQ(data["circuit"]["edges"].size(), 24u);
  const nlohmann::json listed = data["run"]["study"]["circuit"];
  EXPECT_EQ(listed["nodes"].size(), 1000u);
  EXPECT_EQ(listed["nodes"][0]["name"], "L0.N1099");  // the largest first
  EXPECT_EQ(listed["edges"].size(), 1000u);
  EXPECT_EQ(listed["edges"][0]["sender"], "L1099.mlp");
  EXPECT_EQ(listed["minimality"].size(), 1000u);
}

TEST(Dashboard, HoldsAThousandResponsesAndTheBeginningOfPrompts) {
  v1::Study study = SmallStudy();
  for (int i = 0; i < 1001; ++i)
    study.mutable_baseline()->add_responses()->set_prompt(std::string(3000, 'p'));
  const nlohmann::json responses = Data(Render(study))["run"]["study"]["baseline"]["responses"];
  ASSERT_EQ(responses.size(), 1000u);
  EXPECT_EQ(responses[0]["prompt"], std::string(2000, 'p') + "…");
}

TEST(Dashboard, RefusesWhatNoBrowserWouldDraw) {
  v1::GetRunResponse run;
  *run.mutable_study() = SmallStudy();
  run.mutable_study()->mutable_patching()->add_position_labels(std::string(33 << 20, 'x'));
  const absl::Status status = RenderDashboard(run).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 33554432 can be shown"));
}

}  // namespace
}  // namespace mechinterp
