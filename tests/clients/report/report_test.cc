// What a report says of results whose verdicts are known, and that texts stay texts.

#include "clients/report/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/report/hypotheses.h"

namespace mechinterp {
namespace {

using testing::AllOf;
using testing::Each;
using testing::Field;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

void Set(double rate, double lower, double upper, v1::Rate& target) {
  target.set_rate(rate);
  target.set_lower(lower);
  target.set_upper(upper);
  target.set_total_count(100);
}

void Set(double mean, double lower, double upper, v1::Estimate& target) {
  target.set_mean(mean);
  target.set_lower(lower);
  target.set_upper(upper);
}

Verdict VerdictOf(const v1::Study& study, int index) { return JudgeHypotheses(study)[index].verdict; }

TEST(Hypotheses, AreNotMeasuredWithoutResults) {
  const std::vector<Hypothesis> all = JudgeHypotheses({});
  EXPECT_THAT(all, SizeIs(9));
  EXPECT_THAT(all, Each(Field(&Hypothesis::verdict, Verdict::kNotMeasured)));
  EXPECT_THAT(all, Each(Field(&Hypothesis::criterion, Not(testing::IsEmpty()))));
}

// An interval decides only where it lies wholly on one side.
TEST(Hypotheses, AreDecidedByWholeIntervals) {
  v1::Study study;
  v1::BaselineResults& baseline = *study.mutable_baseline();
  Set(1, 0.96, 1, *baseline.mutable_harmful());
  Set(0, 0, 0.04, *baseline.mutable_harmless());
  EXPECT_EQ(VerdictOf(study, 0), Verdict::kSupported);
  Set(1, 0.796, 1, *baseline.mutable_harmful());  // 15 of 15
  EXPECT_EQ(VerdictOf(study, 0), Verdict::kUndecided);
  Set(0.5, 0.4, 0.6, *baseline.mutable_harmful());
  EXPECT_EQ(VerdictOf(study, 0), Verdict::kNotSupported);
  Set(1, 0.96, 1, *baseline.mutable_harmful());
  Set(0.3, 0.2, 0.4, *baseline.mutable_harmless());
  EXPECT_EQ(VerdictOf(study, 0), Verdict::kNotSupported);  // both parts must hold
}

TEST(Hypotheses, OfLayersGoByTheirShareOfDepth) {
  v1::Study study;
  v1::PatchingResults& patching = *study.mutable_patching();
  for (uint32_t layer = 0; layer < 32; ++layer) {
    v1::LayerImportance& importance = *patching.add_layers();
    importance.set_layer(layer);
    importance.set_importance(layer >= 15 && layer <= 27 ? 1 : 0.1);
  }
  EXPECT_EQ(VerdictOf(study, 1), Verdict::kSupported);
  patching.mutable_layers(31)->set_importance(5);  // the most important one
  EXPECT_EQ(VerdictOf(study, 1), Verdict::kNotSupported);
}

TEST(Hypotheses, OfAblationNeedHeldOutPrompts) {
  v1::Study study;
  study.mutable_ablation()->mutable_criterion()->set_met(true);
  EXPECT_EQ(VerdictOf(study, 2), Verdict::kUndecided);
  study.mutable_ablation()->mutable_held_out_criterion()->set_met(true);
  EXPECT_EQ(VerdictOf(study, 2), Verdict::kSupported);
  study.mutable_ablation()->mutable_held_out_criterion()->set_met(false);
  EXPECT_EQ(VerdictOf(study, 2), Verdict::kNotSupported);
}

TEST(Hypotheses, OfTheDirectionLookAtHarmAndControls) {
  v1::Study study;
  v1::DirectionResults& direction = *study.mutable_direction();
  direction.set_chosen(0);
  const auto add = [&](v1::DirectionEdit edit, double rate, double lower, double upper, double kl) {
    v1::DirectionOutcome& outcome = *direction.add_outcomes();
    outcome.set_edit(edit);
    Set(rate, lower, upper, *outcome.mutable_harmful());
    Set(kl, kl, kl, *outcome.mutable_harmless_kl());
  };
  add(v1::DIRECTION_EDIT_NONE, 1, 0.96, 1, 0);
  add(v1::DIRECTION_EDIT_ABLATION, 0, 0, 0.04, 3);  // moves everything
  EXPECT_EQ(VerdictOf(study, 6), Verdict::kNotSupported);
  add(v1::DIRECTION_EDIT_AFFINE, 0, 0, 0.04, 0.02);
  add(v1::DIRECTION_EDIT_RANDOM_ABLATION, 1, 0.96, 1, 0);
  EXPECT_EQ(VerdictOf(study, 6), Verdict::kSupported);
  add(v1::DIRECTION_EDIT_RANDOM_ABLATION, 0.2, 0.1, 0.3, 0);  // so does a random one
  EXPECT_EQ(VerdictOf(study, 6), Verdict::kNotSupported);
}

TEST(Hypotheses, OfHiddenNodesCountBackups) {
  v1::Study study;
  v1::MeasuredNode& member = *study.mutable_circuit()->add_nodes();
  member.set_name("L1.N5");
  member.set_role(v1::CIRCUIT_ROLE_MEMBER);
  member.set_p_value(0.01);
  member.set_direct_attribution(0.2);
  EXPECT_EQ(VerdictOf(study, 8), Verdict::kNotSupported);
  member.set_direct_attribution(-0.002);
  const Hypothesis hidden = JudgeHypotheses(study)[8];
  EXPECT_EQ(hidden.verdict, Verdict::kSupported);
  EXPECT_THAT(hidden.evidence, HasSubstr("1 of 1 nodes (L1.N5); 0 backups"));
}

TEST(Document, ShowsTextsAsTheyAre) {
  Document document("A <b>title</b>");
  document.AddParagraph("*bold* & <script>alert(1)</script>");
  document.AddTable({"a|b"}, {{"x\n| y"}});
  document.AddCommands({"abstract \"<x>\""});
  EXPECT_EQ(document.ToMarkdown(),
            "# A &lt;b>title&lt;/b>\n\n\\*bold\\* & &lt;script>alert(1)&lt;/script>\n\n"
            "| a\\|b |\n| --- |\n| x \\| y |\n\n    abstract \"<x>\"\n");
  EXPECT_THAT(document.ToHtml(),
              AllOf(HasSubstr("<h1>A &lt;b&gt;title&lt;/b&gt;</h1>"), HasSubstr("&lt;script&gt;alert(1)"),
                    HasSubstr("<th>a|b</th>"), HasSubstr("abstract &quot;&lt;x&gt;&quot;"),
                    Not(HasSubstr("<script>"))));
}

TEST(Report, HoldsWhatWasRunAndHowToRunItAgain) {
  v1::Study study;
  v1::Provenance& provenance = *study.mutable_baseline()->mutable_provenance();
  provenance.mutable_model()->set_name("a_model");
  provenance.mutable_model()->set_quantization(v1::QUANTIZATION_NF4);
  provenance.add_arguments("baseline");
  provenance.add_arguments("--limit=3");
  v1::PromptSource& source = *provenance.add_prompt_sources();
  source.set_path("data/prompts.json");
  source.set_prompt_count(3);
  const std::string text = BuildReport(study).ToMarkdown();
  EXPECT_THAT(text, HasSubstr("| model | a\\_model |"));
  EXPECT_THAT(text, HasSubstr("| weights | nf4 |"));
  EXPECT_THAT(text, HasSubstr("| data/prompts.json |  | 3 | 0 |  |"));
  EXPECT_THAT(text, HasSubstr("    abstract baseline --limit=3\n"));
  EXPECT_THAT(text, Not(HasSubstr("## The circuit")));
  EXPECT_EQ(text, BuildReport(study).ToMarkdown());
}

}  // namespace
}  // namespace mechinterp
