#include <sstream>

#include "clients/lib/client_metrics.h"
#include "clients/lib/parallel.h"
#include "clients/lib/progress.h"
#include "clients/lib/text_style.h"
#include "clients/lib/text_table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "tests/status_matchers.h"

namespace mechinterp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(TextTable, AlignsColumnsByCharactersNotBytes) {
  TextTable table({"name", "value"});
  table.AddRow({"\u00e9", "1"});
  table.AddRow({"long name", "12"});
  EXPECT_EQ(table.ToString(),
            "name       value\n"
            "---------  -----\n"
            "\u00e9              1\n"
            "long name     12\n");
}

TEST(OneLine, ShortensWithoutCuttingCharacters) {
  EXPECT_EQ(OneLine("a\nb", 10), "a b");
  EXPECT_EQ(OneLine("\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9", 5), "\u00e9\u00e9...");
}

TEST(Visible, ShowsSpacesAndLineBreaks) {
  EXPECT_EQ(Visible(" a\n\tb\r"), "\" a\\n\\tb\\r\"");
  EXPECT_EQ(Visible("<|begin_of_text|>", 9), "\"<|begi...\"");
}

TEST(ProgressPrinter, EstimatesTheTimeLeftFromThisRunsSteps) {
  absl::Time now = absl::UnixEpoch();
  std::ostringstream out;
  ProgressPrinter progress(out, /*is_terminal=*/true, [&] { return now; });
  progress.Begin("patching", 20, 10);
  now += absl::Seconds(4);
  progress.Advance(1);
  progress.Advance(1);  // Within the redraw interval: not drawn.
  EXPECT_THAT(out.str(), HasSubstr("55 %  11/20  0:36 left"));
  EXPECT_THAT(out.str(), Not(HasSubstr("12/20")));
  progress.End();
  EXPECT_THAT(out.str(), HasSubstr("patching: 12/20 in 0:04 (10 taken over from a former run)"));
}

TEST(ProgressPrinter, CountsPartsOfSteps) {
  absl::Time now = absl::UnixEpoch();
  std::ostringstream out;
  ProgressPrinter progress(out, /*is_terminal=*/true, [&] { return now; });
  progress.Begin("patching", 4, 0);
  now += absl::Seconds(10);
  progress.AdvancePart(0.5);
  EXPECT_THAT(out.str(), HasSubstr("12 %  0/4  1:10 left"));
  now += absl::Seconds(10);
  progress.AdvancePart(0.5);
  now += absl::Seconds(1);
  progress.Advance(1);  // the step that was told in parts: not counted twice
  EXPECT_THAT(out.str(), HasSubstr("25 %  1/4  1:03 left"));
}

TEST(ProgressPrinter, GivesRemarksLinesOfTheirOwn) {
  absl::Time now = absl::UnixEpoch();
  std::ostringstream out;
  ProgressPrinter progress(out, /*is_terminal=*/true, [&] { return now; });
  progress.Remark("before");
  EXPECT_EQ(out.str(), "before\n");
  progress.Begin("baseline", 2, 0);
  out.str("");
  progress.Remark("no answer");
  EXPECT_THAT(out.str(), ::testing::StartsWith("\r\033[Kno answer\n"));
  EXPECT_THAT(out.str(), ::testing::EndsWith("0 %  0/2"));  // drawn again
}

TEST(WithColours, MarksHeadingsAndVerdicts) {
  EXPECT_EQ(WithColours("a  b\n-  -\n1  2\n"), "a  b\n-  -\n1  2\n");  // dashes of one column may be a value
  EXPECT_EQ(WithColours("name  x\n----  -\nb     2\n"), "\033[1mname  x\033[0m\n----  -\nb     2\n");
  EXPECT_EQ(WithColours("met: NOT MET, MET"), "met: \033[1;31mNOT MET\033[0m, \033[1;32mMET\033[0m");
}

TEST(ProgressPrinter, PrintsFewLinesOffATerminal) {
  absl::Time now = absl::UnixEpoch();
  std::ostringstream out;
  ProgressPrinter progress(out, /*is_terminal=*/false, [&] { return now; });
  progress.Begin("baseline", 100, 0);
  for (int i = 0; i < 100; ++i) {
    now += absl::Milliseconds(200);
    progress.Advance(1);
  }
  const std::string text = out.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);  // At 0, 10 and 20 seconds.
  EXPECT_THAT(text, Not(HasSubstr("\033")));
}

TEST(ClockDuration, GrowsHoursWhenNeeded) {
  EXPECT_EQ(ClockDuration(absl::Seconds(7)), "0:07");
  EXPECT_EQ(ClockDuration(absl::Seconds(3723)), "1:02:03");
}

TEST(ParallelFor, DoesEverythingOnce) {
  std::vector<std::atomic<int>> done(100);
  ASSERT_THAT(ParallelFor(100, 4,
                          [&](int i) {
                            ++done[static_cast<size_t>(i)];
                            return absl::OkStatus();
                          }),
              IsOk());
  for (const auto& count : done) EXPECT_EQ(count, 1);
}

TEST(ParallelFor, StopsAtTheFirstFailure) {
  int calls = 0;
  const absl::Status status = ParallelFor(10, 1, [&](int i) {
    ++calls;
    return i == 3 ? absl::InternalError("three") : absl::OkStatus();
  });
  EXPECT_EQ(status.message(), "three");
  EXPECT_EQ(calls, 4);
}

TEST(ClientMetrics, CountsCallsStepsAndRates) {
  const auto registry = std::make_shared<prometheus::Registry>();
  ClientMetrics metrics(registry, "baseline");
  metrics.CountRpc("Generate", absl::UnavailableError(""));
  metrics.Begin("baseline", 4, 1);
  metrics.Advance(2);
  metrics.SetRefusalRate("baseline", v1::PROMPT_CLASS_HARMFUL, 0.75);
  metrics.SetEffect("L2.H1", v1::PATCH_DIRECTION_NOISING, 0.5);
  const std::string text = prometheus::TextSerializer().Serialize(registry->Collect());
  EXPECT_THAT(text, HasSubstr(R"(abstract_client_rpcs_total{code="UNAVAILABLE",method="Generate"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(abstract_client_runs_total{experiment="baseline"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(abstract_client_steps_done_total{experiment="baseline"} 1)"));
  EXPECT_THAT(text, HasSubstr(R"(abstract_client_experiment_progress_ratio{experiment="baseline"} 0.5)"));
  EXPECT_THAT(
      text, HasSubstr(R"(abstract_client_refusal_ratio{condition="baseline",prompt_class="harmful"} 0.75)"));
  EXPECT_THAT(text, HasSubstr(R"(abstract_client_effect{component="L2.H1",direction="noising"} 0.5)"));
}

}  // namespace
}  // namespace mechinterp
